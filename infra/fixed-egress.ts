import { CfnOutput, Fn, RemovalPolicy, Validations } from 'aws-cdk-lib';
import { CfnEIP, IpAddresses, NatProvider, SubnetType, Vpc } from 'aws-cdk-lib/aws-ec2';
import { Construct } from 'constructs';

export interface FixedEgressProps {
  /**
   * How many addresses there are, each with a NAT gateway in a zone of its own: 1 or 2. With one, nothing is rotated while its zone
   * is out; what was begun then is finished by itself afterwards.
   * @default 1
   */
  readonly natGateways?: number;
  /** Of the network, where it must not overlap with others. A /24 is more than enough. @default '10.0.0.0/24' */
  readonly cidr?: string;
}

/**
 * A network whose functions always call from the same addresses, for vendors that let in listed ones only. Hand `vpc` to Rekey, and
 * enter `addresses` at each vendor before the first rotation. They stay yours when this goes: release them by hand once no vendor
 * lists them any more, as AWS gives them to others then.
 */
export class FixedEgress extends Construct {
  /** For Rekey's `vpc`. Nothing listens in it. */
  readonly vpc: Vpc;
  /** IPv4, one a NAT gateway. */
  readonly addresses: readonly string[];

  constructor(scope: Construct, id: string, props: FixedEgressProps = {}) {
    super(scope, id);
    const { natGateways = 1, cidr = '10.0.0.0/24' } = props;
    const faults = faultsOf(natGateways, cidr);
    this.node.addValidation({ validate: () => faults });
    // A wrong one makes the synthesis fail; what follows only keeps the rest of it readable.
    const count = faults.length === 0 ? natGateways : 1;
    const addresses = Array.from({ length: count }, (_, index) => {
      const address = new CfnEIP(this, `Address${index + 1}`, { domain: 'vpc' });
      // People have entered it at vendors, and AWS gives none back.
      address.applyRemovalPolicy(RemovalPolicy.RETAIN);
      return address;
    });
    this.addresses = addresses.map(({ attrPublicIp }) => attrPublicIp);
    this.vpc = new Vpc(this, 'Vpc', {
      ipAddresses: IpAddresses.cidr(faults.length === 0 ? cidr : '10.0.0.0/24'),
      maxAzs: 2,
      natGateways: count,
      natGatewayProvider: NatProvider.gateway({
        eipAllocationIds: addresses.map(({ attrAllocationId }) => attrAllocationId),
      }),
      subnetConfiguration: [
        { name: 'Public', subnetType: SubnetType.PUBLIC, mapPublicIpOnLaunch: false },
        { name: 'Private', subnetType: SubnetType.PRIVATE_WITH_EGRESS },
      ],
      // Nothing is ever in the default group. Emptying it takes a function with rights on security groups.
      restrictDefaultSecurityGroup: false,
    });
    Validations.of(this.vpc).acknowledge({
      id: 'AwsSolutions-VPC7',
      reason:
        'Nothing listens in this network, and the functions in it log what they call. Whoever wants a flow log adds one with vpc.addFlowLog.',
    });
    new CfnOutput(this, 'Addresses', {
      description: 'What the vendors have to let in',
      value: Fn.join(',', [...this.addresses]),
    });
  }
}

const faultsOf = (natGateways: number, cidr: string): string[] => [
  ...(natGateways === 1 || natGateways === 2
    ? []
    : [`natGateways: expected 1 or 2, got ${natGateways}; there are two zones, with at most one each`]),
  ...(isNetwork(cidr)
    ? []
    : [
        `cidr: expected a private network of /16 to /26, got ${JSON.stringify(cidr)}; give one such as 10.0.0.0/24`,
      ]),
];

/** Four subnets have to fit in, and AWS wants each to have 16 addresses. */
function isNetwork(cidr: string): boolean {
  const [, first, second, prefix] = /^(\d+)\.(\d+)\.\d+\.\d+\/(\d+)$/.exec(cidr)?.map(Number) ?? [];
  if (first === undefined || second === undefined || prefix === undefined) return false;
  const isPrivate =
    first === 10 || (first === 172 && second >= 16 && second < 32) || (first === 192 && second === 168);
  return isPrivate && prefix >= 16 && prefix <= 26;
}
