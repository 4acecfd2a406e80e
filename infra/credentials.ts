import { Duration } from 'aws-cdk-lib';
import { CockroachDb, Render, Vultr, Zilliz } from './accounts.ts';
import { Consumer, DatabaseCredential } from './database-credential.ts';
import type { Rekey } from './rekey.ts';

/**
 * The accounts and credentials of this deployment: the one file to edit. `npm run typecheck` and `npm run synth` check it.
 *
 * Before the first rotation of a credential, store the vendor's API key in its account's secret (README.md says how). Taking a
 * credential out of here stops its rotation. Its secret and the database user stay, so nobody is cut off. To end both, send
 * `CredentialDeletionRequested` first. Each is declared within `rekey` under its name, by which CloudFormation knows it: another
 * place or id would be another secret, whose name exists already.
 */
export function declareCredentials(rekey: Rekey): void {
  const render = new Render(rekey, 'Render');
  new DatabaseCredential(rekey, 'orders-render', {
    rekey,
    // Lower case, digits and hyphens. Applications read the secret `rekey/orders-render`.
    credentialName: 'orders-render',
    // The instance, from the address of its page in Render's dashboard.
    target: render.postgres('dpg-d0local0render0demo0-a'),
    // Every generation is a user of its own, called `orders_` and what rekey derives from the rotation.
    usernamePrefix: 'orders',
    // A new user at every rotation; the one before keeps working. Render can do nothing else.
    strategy: 'replace-user',
    // How often, in whole days.
    rotationInterval: Duration.days(30),
    // When a rotation may start; without a window at any time. By the clock on the wall, daylight-saving time included.
    rotationWindow: {
      start: '02:00',
      length: Duration.hours(3),
      days: ['MO', 'TU', 'WE', 'TH'],
      timeZone: 'Europe/Berlin',
    },
    // How long the user before keeps working at least, for applications that still hold its password.
    gracePeriod: Duration.hours(24),
    // Who cannot read Secrets Manager: this service gets each new login as its variable, and a deploy. The user before stays until
    // the deploy is live.
    consumers: [
      Consumer.renderService({
        account: render,
        serviceId: 'srv-d0local0render0demo0',
        environmentVariable: 'DATABASE_URL',
      }),
    ],
  });

  const cockroachdb = new CockroachDb(rekey, 'CockroachDb');
  new DatabaseCredential(rekey, 'orders-cockroach', {
    rekey,
    credentialName: 'orders-cockroach',
    // The cluster's id, from `ccloud cluster list` or the address of its page, and the database to log in to.
    target: cockroachdb.cluster('0b7c5a2e-6d2f-4b53-9d1a-2c9f3f1e8a10', 'defaultdb'),
    usernamePrefix: 'orders',
    // The SQL roles that every new user is given, and nothing beside them: `admin` is taken away. They must exist.
    privileges: { roles: ['orders_rw'] },
    // A user that somebody is still connected as stays, and after this time there is an alarm. With force it is cut off then.
    drainDeadline: Duration.days(7),
    forceDrain: false,
  });

  const vultr = new Vultr(rekey, 'Vultr');
  new DatabaseCredential(rekey, 'orders-valkey', {
    rekey,
    credentialName: 'orders-valkey',
    // The database's id, from the address of its page in Vultr's console.
    target: vultr.valkey('6f0d6f4e-9d0c-4a53-8a2e-5b1f7c3d9e21'),
    usernamePrefix: 'orders',
    // What every new user may do, and nothing beside it: Vultr gives more at birth, which is taken away. Keys are patterns
    // without ~. With client|list a user can show who is still connected under its name, and with client|setname say who it is.
    privileges: {
      categories: ['+@read', '+@write', '-@dangerous'],
      commands: ['+client|list', '+client|setname'],
      keys: ['orders:*'],
    },
  });

  const zilliz = new Zilliz(rekey, 'Zilliz');
  new DatabaseCredential(rekey, 'orders-vectors', {
    rekey,
    credentialName: 'orders-vectors',
    // The cluster's id, as on its page. It has to be a dedicated one: the other plans have no users.
    target: zilliz.cluster('in01-0local0zilliz'),
    usernamePrefix: 'orders',
    // The cluster's roles that every new user is given, and nothing beside them. They must exist.
    privileges: { roles: ['orders_rw'] },
  });
}
