import {
  Annotations,
  ArnFormat,
  Aspects,
  type Duration,
  RemovalPolicy,
  Stack,
  Stage,
  Token,
  TokenComparison,
} from 'aws-cdk-lib';
import { CfnEventBus, type EventBus, type IEventBus, type IRuleTarget, Rule } from 'aws-cdk-lib/aws-events';
import type { Grant, IGrantable } from 'aws-cdk-lib/aws-iam';
import type { IKey } from 'aws-cdk-lib/aws-kms';
import { CfnRotationSchedule, CfnSecret, type ISecret, Secret } from 'aws-cdk-lib/aws-secretsmanager';
import { ParameterTier, StringParameter } from 'aws-cdk-lib/aws-ssm';
import { Construct, type IConstruct } from 'constructs';
import { eventBridge } from '../functions/consumers/event-bridge.ts';
import { renderService } from '../functions/consumers/render-service.ts';
import * as calendar from '../functions/core/calendar.ts';
import {
  type CapacityFault,
  keyCapacity,
  sharesKey,
  sharesTarget,
  targetCapacity,
} from '../functions/core/capacity.ts';
import type { AnyConsumerDefinition } from '../functions/core/consumer.ts';
import type { RekeyEvent } from '../functions/core/events.ts';
import { eventSource, secretName, specParameterName } from '../functions/core/names.ts';
import type { Strategy } from '../functions/core/provider.ts';
import { firstSecretString } from '../functions/core/secret-value.ts';
import { backstopDays, type CredentialSpec, specDocument } from '../functions/core/spec.ts';
import { type Day, specOf } from '../functions/core/spec-schema.ts';
import type { DatabaseTarget, Render } from './accounts.ts';
import { arnOf } from './handler.ts';
import type { RekeySystem } from './rekey-system.ts';
import { grantReadUnderKey, secretProps } from './secret-storage.ts';

/** What a credential is, whatever its vendor. */
interface CommonProps {
  /** The system that looks after it: a Rekey of this app, or `Rekey.fromAccount`. In the same account and Region. */
  readonly rekey: RekeySystem;
  /** Lower case, digits and hyphens. Applications read the secret `rekey/<credentialName>`. Cannot be changed later. */
  readonly credentialName: string;
  /**
   * What the names of its users begin with: a lower-case letter, then up to 18 of a-z, 0-9 and underscore. Of one target no two
   * credentials may have the same, and it cannot be changed while a user has it.
   */
  readonly usernamePrefix: string;
  /** How often it is rotated, in whole days. @default Duration.days(30) */
  readonly rotationInterval?: Duration;
  /** When a rotation may start. @default at any time */
  readonly rotationWindow?: RotationWindow;
  /** Days without rotations. @default none */
  readonly blackouts?: readonly Blackout[];
  /**
   * How long the login before keeps working at least after a rotation: longer than any application takes to read the new one. At
   * most half of `rotationInterval` with `replace-user`.
   * @default Duration.hours(24)
   */
  readonly gracePeriod?: Duration;
  /** How long after its grace a user may stay because somebody is connected, before there is an alarm. @default Duration.days(7) */
  readonly drainDeadline?: Duration;
  /** Whether such connections are cut at the deadline. @default false */
  readonly forceDrain?: boolean;
  /** Who cannot read Secrets Manager and is told of each new login. @default none */
  readonly consumers?: readonly Consumer[];
  /** A user that exists already, whose login the credential begins with. @default a user is made at once */
  readonly adopt?: AdoptedUser;
  /** When the credential ends by itself. @default never */
  readonly expiresAt?: Date;
  /** `none` publishes new logins untested, where the functions cannot reach the database. @default 'login' */
  readonly verify?: 'login' | 'none';
}

/** A credential of a Render Postgres instance: its users all have the rights of the owner, and Render chooses the passwords. */
export interface RenderCredentialProps extends CommonProps {
  readonly target: DatabaseTarget<'render-postgres'>;
  /** Render can do no other. @default 'replace-user' */
  readonly strategy?: 'replace-user';
  readonly privileges?: undefined;
  readonly adminSecretName?: undefined;
}

/** A credential of a CockroachDB Cloud cluster. */
export interface CockroachDbCredentialProps extends CommonProps {
  readonly target: DatabaseTarget<'cockroachdb-cloud'>;
  /** @default 'replace-user' */
  readonly strategy?: Strategy;
  /** What each user may do, and nothing beside it. @default no role at all */
  readonly privileges?: {
    /** SQL roles, which must exist. Never `admin`. */
    readonly roles?: readonly string[];
    /** Gets what a retired user owns, so that the user can be deleted. @default whoever owns something stays, and is reported */
    readonly objectsOwner?: string;
  };
  /**
   * The name of a secret below `rekey/admin/` with a SQL administrator's `username` and `password`, who can see and end the
   * connections of all.
   * @default none
   */
  readonly adminSecretName?: string;
}

/** A credential of a Vultr Managed Database for Valkey. */
export interface ValkeyCredentialProps extends CommonProps {
  readonly target: DatabaseTarget<'vultr-valkey'>;
  /** @default 'replace-user' */
  readonly strategy?: Strategy;
  /** What each user may do, and nothing beside it. */
  readonly privileges: {
    /** With +@ or -@ in front, such as `+@read`. */
    readonly categories: readonly string[];
    /** With + or - in front, such as `-config|set`. @default none beside the categories */
    readonly commands?: readonly string[];
    /** Patterns without ~, such as `orders:*`. */
    readonly keys: readonly string[];
    /** Patterns without &. @default none */
    readonly channels?: readonly string[];
  };
  readonly adminSecretName?: undefined;
}

/** A credential of a Zilliz Cloud cluster. */
export interface ZillizCredentialProps extends CommonProps {
  readonly target: DatabaseTarget<'zilliz-cloud'>;
  /** @default 'replace-user' */
  readonly strategy?: Strategy;
  /** What each user may do, and nothing beside it. @default no role at all */
  readonly privileges?: {
    /** Roles of the cluster, which must exist. */
    readonly roles?: readonly string[];
  };
  readonly adminSecretName?: undefined;
}

export type DatabaseCredentialProps =
  | RenderCredentialProps
  | CockroachDbCredentialProps
  | ValkeyCredentialProps
  | ZillizCredentialProps;

/** By the clock on the wall, daylight-saving time included. */
export interface RotationWindow {
  /** When it opens, such as `02:00`. */
  readonly start: string;
  /** At most a day; it may reach past midnight. */
  readonly length: Duration;
  /** The days on which it opens. @default every day */
  readonly days?: readonly Day[];
  /** Of the IANA database, such as `Europe/Berlin`. @default 'UTC' */
  readonly timeZone?: string;
}

/** Both days included, in the time zone of the window. */
export interface Blackout {
  /** Such as `2026-12-20`. */
  readonly from: string;
  readonly to: string;
}

export interface AdoptedUser {
  readonly username: string;
  /** The name of a secret below `rekey/adopt/` with `username` and `password`. */
  readonly passwordSecretName: string;
  /** Whether that user is retired like any other after the first rotation. @default false */
  readonly retire?: boolean;
}

/** Who is told of a new login. Made by the functions of this class. */
export class Consumer {
  /** A service or cron job on Render: gets the login as a variable, and a deploy. The user before stays until that is live. */
  static renderService({ account, serviceId, environmentVariable, field }: RenderServiceProps): Consumer {
    return new Consumer(renderService, {
      kind: renderService.kind,
      serviceId,
      environmentVariable,
      apiKeySecret: account.apiKeySecretName,
      ...(field === undefined ? {} : { field }),
    });
  }
  /** An event bus of this account and Region, or its name: gets an event with ids only. rekey cannot see whether any consumer handles it. */
  static eventBus(bus: EventBus | IEventBus | string): Consumer {
    const busName = typeof bus === 'string' ? bus : nameOf(bus);
    return new Consumer(
      eventBridge,
      { kind: eventBridge.kind, busName },
      typeof bus === 'string' ? undefined : bus,
    );
  }

  readonly definition: AnyConsumerDefinition;
  readonly settings: Readonly<Record<string, string>> & { readonly kind: string };
  /** Where it is a thing of an account and a Region. */
  readonly resource: EventBus | IEventBus | undefined;
  private constructor(
    definition: AnyConsumerDefinition,
    settings: Consumer['settings'],
    resource?: EventBus | IEventBus,
  ) {
    this.definition = definition;
    this.settings = settings;
    this.resource = resource;
  }
}

/** What CloudFormation will call it: the functions read the name in the spec, where it cannot be a reference. */
function nameOf(bus: EventBus | IEventBus): string {
  const { defaultChild } = bus.node;
  const name = defaultChild instanceof CfnEventBus ? defaultChild.name : bus.eventBusName;
  return String(Stack.of(bus).resolve(name));
}

export interface RenderServiceProps {
  /** The account that the service belongs to. */
  readonly account: Render;
  /** Such as `srv-d1abc2d3e4f5g6h7i8j9`; `crn-…` for a cron job. */
  readonly serviceId: string;
  /** The variable that holds the login, such as `DATABASE_URL`. */
  readonly environmentVariable: string;
  /** Which field of the secret's value it gets. @default 'url' */
  readonly field?: string;
}

/** A credential that exists without this stack: declared by another one, or requested on the bus. */
export interface ExistingCredential {
  readonly credentialName: string;
  /** What applications ask Secrets Manager for: `rekey/<credentialName>`. */
  readonly secretName: string;
  /** For its ARN and for grants. Its own `secretName` may end in the six characters of the ARN, as CDK cannot tell them apart. */
  readonly secret: ISecret;
  /**
   * Lets the grantee read the login: AWSCURRENT, named or by default, and AWSPREVIOUS. AWSPENDING is refused, as nobody has proved it and a
   * rotation may give it up. So is every read by `VersionId`, which does not tell IAM what stage the version has.
   *
   * It holds for this grant: another policy that lets the grantee read the secret without such a condition is not taken back. A value
   * stays readable under AWSPREVIOUS until the next rotation, also where its user is gone.
   */
  grantRead(grantee: IGrantable): Grant;
}

export interface ExistingCredentialProps {
  /** What its secret lies under: the `encryptionKey` of its Rekey. @default the key that AWS manages for Secrets Manager */
  readonly encryptionKey?: IKey;
}

export interface CredentialEventProps {
  /** What is called. */
  readonly target: IRuleTarget;
  /** Such as `CredentialRotated`. @default whatever happens to the credential */
  readonly types?: readonly RekeyEvent['type'][];
  /** @default a sentence with the name of the credential */
  readonly description?: string;
}

/**
 * A login of a database, kept in Secrets Manager and rotated: its spec, its secret and the rotation. Deploying changes no
 * password, whatever is changed here. Taking it out of the app stops its rotation; its secret and its user stay, so nobody is cut
 * off: to end both, send `CredentialDeletionRequested` first. In another scope or under another id it is another one to
 * CloudFormation, whose secret exists already: `cdk refactor` moves it.
 */
export class DatabaseCredential extends Construct implements ExistingCredential {
  /** One that another stack of the account and Region declared, or that was requested on the bus. Nothing is looked up. */
  static fromName(
    scope: Construct,
    id: string,
    credentialName: string,
    { encryptionKey }: ExistingCredentialProps = {},
  ): ExistingCredential {
    const secretPartialArn = arnOf(
      scope,
      'secretsmanager',
      'secret',
      secretName(credentialName),
      ArnFormat.COLON_RESOURCE_NAME,
    );
    const secret = Secret.fromSecretAttributes(scope, id, {
      secretPartialArn,
      ...(encryptionKey === undefined ? {} : { encryptionKey }),
    });
    return {
      credentialName,
      secretName: secretName(credentialName),
      secret,
      grantRead: (grantee) => grantReadUnderKey(secret, grantee),
    };
  }

  readonly credentialName: string;
  readonly secretName: string;
  /** What applications read: the login under AWSCURRENT. It must not be given a rotation or a value of its own. */
  readonly secret: ISecret;
  private readonly rekey: RekeySystem;
  private readonly spec: CredentialSpec | undefined;

  constructor(scope: Construct, id: string, props: DatabaseCredentialProps) {
    super(scope, id);
    const { rekey, credentialName, consumers = [] } = props;
    this.credentialName = credentialName;
    this.secretName = secretName(credentialName);
    this.rekey = rekey;
    const read = specOf(specInput(props), {
      definition: props.target.definition,
      consumerOf: (kind) => consumers.find(({ definition }) => definition.kind === kind)?.definition,
      calendar,
    });
    this.spec = read.spec;
    const faults = [
      ...(read.faults ?? []).map(asProps),
      ...elsewhere(this, 'rekey', rekey),
      ...consumers.flatMap((consumer, index) => consumerFaults(this, rekey, consumer, index)),
    ];
    this.node.addValidation({
      validate: () => [
        ...faults,
        ...this.sharedWithOthers(),
        ...this.capacityFaults('impossible').map(asProps),
      ],
    });
    // Once all credentials are declared, and before the annotations are collected.
    Aspects.of(this).add({
      visit: (construct) => {
        if (construct !== this) return;
        for (const text of this.capacityFaults('tight'))
          Annotations.of(this).addWarningV2('rekey:capacity', asProps(text));
      },
    });
    // A wrong one makes the synthesis fail; what follows only keeps the rest of it readable.
    const document = read.spec === undefined ? '{}' : specDocument(read.spec);
    const parameter = new StringParameter(this, 'Spec', {
      parameterName: specParameterName(read.spec?.name ?? 'wrong'),
      description: `rekey: desired state of the credential ${credentialName}`,
      stringValue: document,
      // Costs nothing until a spec outgrows the 4 KB of a standard parameter.
      tier: ParameterTier.INTELLIGENT_TIERING,
    });
    // Not `Secret`: that one wants to invent or to be handed a password. This value names no user. Neither name,
    // description nor value may ever change: CloudFormation would make another secret, or write the value over the live password. Key
    // and Regions may, as only a change of the value writes it (AWS documentation).
    const secret = new CfnSecret(this, 'Resource', {
      name: secretName(credentialName),
      description: `rekey: current login of the credential ${credentialName}`,
      secretString: firstSecretString,
      ...secretProps(rekey),
    });
    // Kept when the stack goes: the user lives on at the provider, and this is its only password.
    secret.applyRemovalPolicy(RemovalPolicy.RETAIN);
    // Not `addRotationSchedule`: it rotates at every deployment, forbids the whole account to delete the secret, and
    // lets Secrets Manager of any account call the function (aws/aws-cdk#28406).
    const rotation = new CfnRotationSchedule(this, 'Rotation', {
      secretId: secret.ref,
      rotationLambdaArn: rekey.rotationFunctionArn,
      rotateImmediatelyOnUpdate: false,
      // Later than start-rotations, which knows windows and other credentials of the target. Secrets Manager counts from the last
      // rotation, whoever started it, so this one comes only if start-rotations is dead.
      rotationRules: { automaticallyAfterDays: read.spec === undefined ? 1 : backstopDays(read.spec) },
    });
    // Secrets Manager tries the permission, and the function reads the spec, as soon as the schedule is made.
    rotation.node.addDependency(...rekey.rotatable, parameter);
    this.secret = Secret.fromSecretAttributes(this, 'Secret', {
      secretCompleteArn: secret.ref,
      ...(rekey.encryptionKey === undefined ? {} : { encryptionKey: rekey.encryptionKey }),
    });
  }

  /**
   * Lets the grantee read the login: AWSCURRENT, named or by default, and AWSPREVIOUS. Refused are AWSPENDING, and every read by
   * `VersionId`: see ExistingCredential.
   */
  grantRead(grantee: IGrantable): Grant {
    return grantReadUnderKey(this.secret, grantee);
  }

  /** Afterwards the target is called for what happens to this credential. Events carry ids, never a login. */
  onEvent(id: string, { target, types, description }: CredentialEventProps): Rule {
    return new Rule(this, id, {
      eventBus: this.rekey.bus,
      description: description ?? `rekey: what happens to the credential ${this.credentialName}`,
      eventPattern: {
        source: [eventSource],
        ...(types === undefined ? {} : { detailType: [...types] }),
        detail: { credential: [this.credentialName] },
      },
      targets: [target],
    });
  }

  /** Names tell whose a user is: two credentials with one prefix on one target would take each other's users for their own. */
  private sharedWithOthers(): string[] {
    if (this.spec === undefined) return [];
    const { name, provider, targetId, usernamePrefix } = this.spec;
    return this.declaredBefore().flatMap((other) => [
      ...(other.name === name
        ? [`credentialName: another credential is called ${name}; give each a name of its own`]
        : []),
      ...(other.provider === provider &&
      other.targetId === targetId &&
      other.usernamePrefix === usernamePrefix
        ? [
            `usernamePrefix: ${other.name} has ${usernamePrefix} on ${provider} ${targetId}, too; give one of them another prefix`,
          ]
        : []),
    ]);
  }

  /** Whether all that share its target or its API key can be rotated in their windows. The first of them tells. */
  private capacityFaults(level: CapacityFault['level']): readonly string[] {
    const { spec } = this;
    if (spec === undefined) return [];
    const all = this.declared();
    const sharing = (shares: (one: CredentialSpec, other: CredentialSpec) => boolean) => {
      const isOne = (other: DatabaseCredential): boolean =>
        other.spec !== undefined && shares(other.spec, spec) && (other === this || isSamePlace(other, this));
      // All others stop at the first, as there may be thousands.
      return all.find(isOne) === this ? all.filter(isOne).flatMap((other) => other.spec ?? []) : [];
    };
    return [...targetCapacity(sharing(sharesTarget)), ...keyCapacity(sharing(sharesKey))].flatMap((fault) =>
      fault.level === level ? [fault.text] : [],
    );
  }

  /** Of two that share something one tells. */
  private declaredBefore(): readonly CredentialSpec[] {
    const all = this.declared();
    return all
      .slice(0, all.indexOf(this))
      .filter((other) => isSamePlace(other, this))
      .flatMap(({ spec }) => spec ?? []);
  }

  /** All, in the order of declaration. Another stage of the app may have the same again, for another account. */
  private declared(): readonly DatabaseCredential[] {
    return (Stage.of(this) ?? this.node.root).node
      .findAll()
      .filter((construct) => construct instanceof DatabaseCredential);
  }
}

function consumerFaults(
  credential: DatabaseCredential,
  rekey: RekeySystem,
  { definition, settings, resource }: Consumer,
  index: number,
): readonly string[] {
  const field = `consumers.${index}`;
  const { busName } = settings;
  // A wrong name is told with the other wrong fields.
  if (busName === undefined || !definition.schema.safeParse(settings).success) return [];
  const far = resource === undefined ? [] : elsewhere(credential, field, resource);
  if (far.length > 0 || rekey.allowConsumerBus(busName)) return far;
  return [
    `${field}: rekey was deployed by another app and may not publish on ${busName}; name it in the \`consumerBuses\` of that app, and in those of Rekey.fromAccount`,
  ];
}

/** What is wrong about something that has to be in the account and Region of the credential. */
function elsewhere(credential: Construct, field: string, other: IConstruct): readonly string[] {
  const place = ({ account, region }: { account: string; region: string }) => `${account}/${region}`;
  return isSamePlace(other, credential)
    ? []
    : [
        `${field}: expected the account and Region of the credential (${place(placeOf(credential))}), got ${place(placeOf(other))}; declare the credential in a stack there`,
      ];
}

/** Where a resource is, which for an imported one is not where its stack is. */
const placeOf = (construct: IConstruct): { readonly account: string; readonly region: string } =>
  'env' in construct ? (construct as IConstruct & Pick<IEventBus, 'env'>).env : Stack.of(construct);

/** Unknown counts as the same: a stack without an environment is deployed wherever somebody is logged in. */
function isSamePlace(one: IConstruct, other: IConstruct): boolean {
  const [here, there] = [placeOf(one), placeOf(other)];
  return [
    [here.account, there.account],
    [here.region, there.region],
  ].every(([a = '', b = '']) => Token.compareStrings(a, b) !== TokenComparison.DIFFERENT);
}

/** The fields of a spec, as they are called here. */
const propNames: readonly (readonly [field: RegExp, prop: string])[] = [
  [/^name(?=:)/, 'credentialName'],
  [/^apiKeySecret(?=:)/, 'target: apiKeySecretName'],
  [/^adminSecret(?=:)/, 'adminSecretName'],
  [/\brotation\.every\b/g, 'rotationInterval'],
  [/\brotation\.window\b/g, 'rotationWindow'],
  [/\brotation\.blackouts\b/g, 'blackouts'],
  [/^grace(?=:)/, 'gracePeriod'],
  [/^drain\.deadline(?=:)/, 'drainDeadline'],
  [/^drain\.force(?=:)/, 'forceDrain'],
  [/^adopt\.passwordSecret(?=:)/, 'adopt.passwordSecretName'],
];
const asProps = (fault: string): string =>
  propNames.reduce((text, [field, prop]) => text.replace(field, prop), fault);

/** What the functions read: the same in their words. */
function specInput(props: DatabaseCredentialProps): object {
  const { target, rotationWindow: window, adopt } = props;
  const given = {
    name: props.credentialName,
    provider: target.provider,
    target: target.target,
    apiKeySecret: target.apiKeySecretName,
    adminSecret: 'adminSecretName' in props ? props.adminSecretName : undefined,
    usernamePrefix: props.usernamePrefix,
    strategy: props.strategy,
    privileges: props.privileges,
    rotation: withoutUndefined({
      every: props.rotationInterval?.toIsoString(),
      window: window && withoutUndefined({ ...window, length: window.length.toIsoString() }),
      blackouts: props.blackouts,
    }),
    grace: props.gracePeriod?.toIsoString(),
    drain: withoutUndefined({ deadline: props.drainDeadline?.toIsoString(), force: props.forceDrain }),
    consumers: props.consumers?.map(({ settings }) => settings),
    expiresAt: props.expiresAt?.toISOString(),
    adopt:
      adopt &&
      withoutUndefined({
        username: adopt.username,
        passwordSecret: adopt.passwordSecretName,
        retire: adopt.retire,
      }),
    verify: props.verify,
  };
  return withoutUndefined(given);
}

const withoutUndefined = (value: object): object =>
  Object.fromEntries(Object.entries(value).filter(([, member]) => member !== undefined));
