import { ArnFormat } from 'aws-cdk-lib';
import { EventBus, type IEventBus } from 'aws-cdk-lib/aws-events';
import type { IKey } from 'aws-cdk-lib/aws-kms';
import type { ReplicaRegion } from 'aws-cdk-lib/aws-secretsmanager';
import { Construct, type IConstruct, type IDependable } from 'constructs';
import { arnOf, functionName } from './handler.ts';
import { type SecretStorage, storageFaults } from './secret-storage.ts';

/** What a DatabaseCredential needs of the system that looks after it, whichever app deployed that. */
export interface RekeySystem extends IConstruct, SecretStorage {
  /** The function that Secrets Manager calls for every rotation. */
  readonly rotationFunctionArn: string;
  /** Where requests, orders and facts are published. */
  readonly bus: EventBus | IEventBus;
  /** What has to be there before Secrets Manager is told to rotate; empty where another app deployed it. */
  readonly rotatable: readonly IDependable[];
  /**
   * Afterwards the functions may tell consumers on this bus of the account. False where that cannot be had from here, as another app
   * deployed them.
   */
  allowConsumerBus(busName: string): boolean;
}

export interface DeployedRekeyProps {
  /** What that app has in `consumerBuses`, where consumers of credentials of this app are to be told. @default none */
  readonly consumerBuses?: readonly string[];
  /** What that app has. @default the key that AWS manages for Secrets Manager */
  readonly encryptionKey?: IKey;
  /** What that app has. @default none */
  readonly replicaRegions?: readonly ReplicaRegion[];
}

/**
 * The system that another app has deployed in the account and Region of this stack. Nothing is looked up: its names are fixed, and
 * there is one.
 */
export class DeployedRekey extends Construct implements RekeySystem {
  readonly rotationFunctionArn: string;
  readonly bus: IEventBus;
  readonly rotatable = [];
  readonly encryptionKey: IKey | undefined;
  readonly replicaRegions: readonly ReplicaRegion[];
  private readonly consumerBuses: readonly string[];

  constructor(
    scope: Construct,
    id: string,
    { consumerBuses = [], encryptionKey, replicaRegions = [] }: DeployedRekeyProps = {},
  ) {
    super(scope, id);
    this.encryptionKey = encryptionKey;
    this.replicaRegions = replicaRegions;
    this.node.addValidation({ validate: () => [...storageFaults(this, this)] });
    this.consumerBuses = consumerBuses;
    this.rotationFunctionArn = arnOf(
      this,
      'lambda',
      'function',
      functionName('rotate-secret'),
      ArnFormat.COLON_RESOURCE_NAME,
    );
    this.bus = EventBus.fromEventBusName(this, 'Bus', 'rekey');
  }

  allowConsumerBus(busName: string): boolean {
    return this.consumerBuses.includes(busName);
  }
}
