import { Duration, Stack, type StackProps } from 'aws-cdk-lib';
import { EventBus } from 'aws-cdk-lib/aws-events';
import { Code, Function as LambdaFunction, Runtime } from 'aws-cdk-lib/aws-lambda';
import type { Construct } from 'constructs';
import { CockroachDb, Render } from '../../infra/accounts.ts';
import { Consumer, DatabaseCredential } from '../../infra/database-credential.ts';
import { Rekey } from '../../infra/rekey.ts';

/**
 * How another CDK app uses the constructs: a shop that has three logins on two vendors, and a function that reads one of them.
 * rekey itself was deployed to the account by the platform team, whose `consumerBuses` has `shop`.
 */
export class Shop extends Stack {
  constructor(scope: Construct, id: string, props?: StackProps) {
    super(scope, id, props);
    const rekey = Rekey.fromAccount(this, 'Rekey', { consumerBuses: ['shop'] });
    const render = new Render(this, 'Render');
    const cluster = new CockroachDb(this, 'CockroachDb').cluster(
      '0b7c5a2e-6d2f-4b53-9d1a-2c9f3f1e8a10',
      'shop',
    );

    // The web service runs on Render and cannot read Secrets Manager: it gets each new login as DATABASE_URL, and a deploy.
    new DatabaseCredential(this, 'WebLogin', {
      rekey,
      credentialName: 'shop-web',
      target: render.postgres('dpg-d1abc2d3e4f5g6h7i8j9-a'),
      usernamePrefix: 'web',
      rotationWindow: { start: '02:00', length: Duration.hours(3), timeZone: 'Europe/Berlin' },
      consumers: [
        Consumer.renderService({
          account: render,
          serviceId: 'srv-d1abc2d3e4f5g6h7i8j9',
          environmentVariable: 'DATABASE_URL',
        }),
      ],
    });

    // A function of this app: reads the login when it opens a connection.
    const ordersLogin = new DatabaseCredential(this, 'OrdersLogin', {
      rekey,
      credentialName: 'shop-orders',
      target: cluster,
      usernamePrefix: 'orders',
      privileges: { roles: ['orders_rw'] },
    });
    const orders = new LambdaFunction(this, 'Orders', {
      runtime: Runtime.NODEJS_24_X,
      handler: 'index.handler',
      code: Code.fromInline('exports.handler = async () => {};'),
      environment: { DATABASE_SECRET: ordersLogin.secretName },
    });
    ordersLogin.grantRead(orders);

    // Somebody who keeps connections open for days hears of each new login on a bus of the shop.
    new DatabaseCredential(this, 'ReportsLogin', {
      rekey,
      credentialName: 'shop-reports',
      target: cluster,
      usernamePrefix: 'reports',
      privileges: { roles: ['reports_ro'] },
      rotationInterval: Duration.days(90),
      gracePeriod: Duration.days(7),
      consumers: [Consumer.eventBus(new EventBus(this, 'Bus', { eventBusName: 'shop' }))],
    });
  }
}
