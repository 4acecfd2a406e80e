import { type CfnResource, RemovalPolicy } from 'aws-cdk-lib';
import type { IFunction } from 'aws-cdk-lib/aws-lambda';
import { CfnRotationSchedule, CfnSecret } from 'aws-cdk-lib/aws-secretsmanager';
import { ParameterTier, StringParameter } from 'aws-cdk-lib/aws-ssm';
import { Construct } from 'constructs';
import { secretName, specParameterName } from '../functions/core/names.ts';
import { firstSecretString } from '../functions/core/secret-value.ts';
import { backstopDays, type CredentialSpec, specDocument } from '../functions/core/spec.ts';

export interface CredentialProps {
  readonly spec: CredentialSpec;
  /** The function that Secrets Manager calls for every rotation step. */
  readonly rotateSecret: IFunction;
  /** What lets Secrets Manager call it. */
  readonly rotationPermission: CfnResource;
}

/** One credential: its spec, its secret and its rotation. Deploying changes no password, whatever is changed here. */
export class Credential extends Construct {
  constructor(scope: Construct, id: string, { spec, rotateSecret, rotationPermission }: CredentialProps) {
    super(scope, id);
    const parameter = new StringParameter(this, 'Spec', {
      parameterName: specParameterName(spec.name),
      description: `rekey: desired state of the credential ${spec.name}`,
      stringValue: specDocument(spec),
      // Costs nothing until a spec outgrows the 4 KB of a standard parameter.
      tier: ParameterTier.INTELLIGENT_TIERING,
    });
    // Not `Secret`: that one wants to invent or to be handed a password. This value names no user. Nothing here may ever
    // change, the description included, because CloudFormation would write the value over the live password.
    const secret = new CfnSecret(this, 'Resource', {
      name: secretName(spec.name),
      description: `rekey: current login of the credential ${spec.name}`,
      secretString: firstSecretString,
    });
    // Kept when the stack goes: the user lives on at the provider, and this is its only password.
    secret.applyRemovalPolicy(RemovalPolicy.RETAIN);
    // Not `addRotationSchedule`: it rotates at every deployment, forbids the whole account to delete the secret, and
    // lets Secrets Manager of any account call the function (aws/aws-cdk#28406).
    const rotation = new CfnRotationSchedule(this, 'Rotation', {
      secretId: secret.ref,
      rotationLambdaArn: rotateSecret.functionArn,
      rotateImmediatelyOnUpdate: false,
      // Later than start-rotations, which knows windows and other credentials of the target. Secrets Manager counts from the last
      // rotation, whoever started it, so this one comes only if start-rotations is dead.
      rotationRules: { automaticallyAfterDays: backstopDays(spec) },
    });
    // Secrets Manager tries the permission, and the function reads the spec, as soon as the schedule is made.
    rotation.node.addDependency(rotationPermission, rotateSecret, parameter);
  }
}
