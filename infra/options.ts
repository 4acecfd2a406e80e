import { Token } from 'aws-cdk-lib';
import { type IVpc, SecurityGroup } from 'aws-cdk-lib/aws-ec2';
import type { Construct } from 'constructs';
import type { Network } from './handler.ts';
import type { RekeyProps } from './rekey.ts';
import { storageFaults } from './secret-storage.ts';

/** What cannot be among Rekey's own options, each with what to do about it. */
export function optionFaults(scope: Construct, props: RekeyProps): readonly string[] {
  const { consumerBuses = [], httpsProxy, vpc, vpcSubnets, encryptionKey, replicaRegions = [] } = props;
  return [
    ...consumerBuses.flatMap((name, index) =>
      Token.isUnresolved(name) || /^[A-Za-z0-9._/-]{1,256}$/.test(name)
        ? []
        : [
            `consumerBuses.${index}: expected the name of an event bus of this account, got ${JSON.stringify(name)}; give its name, not its ARN`,
          ],
    ),
    // Never the value, which may hold a password.
    ...(httpsProxy === undefined || Token.isUnresolved(httpsProxy) || isHttp(httpsProxy)
      ? []
      : [
          'httpsProxy: expected an http(s) URL, got something else; give for example http://proxy.internal:3128',
        ]),
    ...(vpcSubnets !== undefined && vpc === undefined
      ? ['vpcSubnets: expected a vpc that has them, got none; give the vpc, too']
      : []),
    ...(vpc?.selectSubnets(vpcSubnets).hasPublic
      ? [
          'vpcSubnets: expected private subnets, got public ones, where a function reaches nothing outside; choose those that have a NAT gateway',
        ]
      : []),
    ...storageFaults(scope, { encryptionKey, replicaRegions }),
  ];
}

function isHttp(url: string): boolean {
  return ['http:', 'https:'].includes(URL.parse(url)?.protocol ?? '');
}

/** Where the functions run: in one security group that lets nobody in. */
export function networkOf(scope: Construct, props: RekeyProps): Network | undefined {
  if (props.vpc === undefined) return undefined;
  // CDK's own class does not fit its interface where a property may not be undefined.
  const vpc = props.vpc as IVpc;
  return {
    vpc,
    subnets: props.vpcSubnets ?? {},
    // Out to everywhere: the vendors' addresses change, and each has ports of its own.
    securityGroup: new SecurityGroup(scope, 'Functions', {
      vpc,
      description: 'rekey: functions that call out, and that nobody calls',
      allowAllOutbound: true,
    }),
  };
}
