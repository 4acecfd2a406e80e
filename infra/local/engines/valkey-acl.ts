import { createHash } from 'node:crypto';
import { RespError, type RespValue } from './resp.ts';

/** What Valkey does with `ACL …`, as far as users, passwords and a handful of commands go. */
export interface Acl {
  /** Throws a `RespError` and changes nothing where a rule is wrong. */
  setUser(name: string, rules: readonly string[]): void;
  /** How many of them there were. */
  deleteUsers(names: readonly string[]): number;
  getUser(name: string): RespValue;
  list(): readonly string[];
  names(): readonly string[];
  /** Whether an enabled user has this password. */
  knows(name: string, password: string): boolean;
  /** Why the user may not run this, or undefined where it may. */
  refusal(name: string, command: readonly string[]): RespError | undefined;
}

/** The categories of the commands that the stand-in has (valkey-doc, topics/acl.md; COMMAND DOCS). */
const categoriesOf: Readonly<Record<string, readonly string[]>> = {
  get: ['read', 'string', 'fast'],
  set: ['write', 'string', 'slow'],
  del: ['keyspace', 'write', 'slow'],
  exists: ['keyspace', 'read', 'fast'],
  ping: ['fast', 'connection'],
  select: ['fast', 'connection'],
  info: ['slow', 'dangerous'],
  'config|get': ['admin', 'slow', 'dangerous'],
  'acl|whoami': ['slow'],
  'acl|list': ['admin', 'slow', 'dangerous'],
  'acl|users': ['admin', 'slow', 'dangerous'],
  'acl|getuser': ['admin', 'slow', 'dangerous'],
  'acl|setuser': ['admin', 'slow', 'dangerous'],
  'acl|deluser': ['admin', 'slow', 'dangerous'],
  'client|id': ['slow', 'connection'],
  'client|setname': ['slow', 'connection'],
  'client|getname': ['slow', 'connection'],
  'client|info': ['slow', 'connection'],
  'client|list': ['admin', 'slow', 'dangerous', 'connection'],
  'client|kill': ['admin', 'slow', 'dangerous', 'connection'],
};
const parents = new Set(['acl', 'client', 'config']);
const keyed = new Set(['get', 'set', 'del', 'exists']);
const categories = new Set(
  (
    'keyspace read write set sortedset list hash string bitmap hyperloglog geo stream pubsub admin fast slow blocking ' +
    'dangerous connection transaction scripting'
  ).split(' '),
);

/** `client|list` for CLIENT LIST, `get` for GET. */
export const nameOf = ([name = '', sub = '']: readonly string[]): string => {
  const lower = name.toLowerCase();
  return parents.has(lower) && sub !== '' ? `${lower}|${sub.toLowerCase()}` : lower;
};

export const isKnown = (command: readonly string[]): boolean => nameOf(command) in categoriesOf;

const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex');

/** A glob of Redis: `*`, `?`, `[…]` and a backslash. */
function matches(pattern: string, text: string): boolean {
  const source = pattern.replaceAll(
    /\\(.)|(\*)|(\?)|\[(\^?[^\]]*)\]|(.)/gs,
    (_all, escaped, star, any, set, plain) => {
      if (star !== undefined) return '.*';
      if (any !== undefined) return '.';
      if (set !== undefined) return `[${set.replaceAll('\\', '\\\\')}]`;
      return (escaped ?? plain).replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&');
    },
  );
  return new RegExp(`^${source}$`, 's').test(text);
}

interface User {
  on: boolean;
  nopass: boolean;
  passwords: Set<string>;
  /** In order: the last that fits decides. */
  commands: string[];
  keys: string[];
  channels: string[];
}

const fresh = (): User => ({
  on: false,
  nopass: false,
  passwords: new Set(),
  commands: ['-@all'],
  keys: [],
  channels: [],
});

const wrong = (rule: string, why: string): RespError =>
  new RespError(`ERR Error in ACL SETUSER modifier '${rule}': ${why}`);

function apply(user: User, rule: string): void {
  const word = rule.toLowerCase();
  const rest = rule.slice(1);
  const resets: Readonly<Record<string, () => void>> = {
    on: () => {
      user.on = true;
    },
    off: () => {
      user.on = false;
    },
    nopass: () => {
      user.nopass = true;
      user.passwords.clear();
    },
    resetpass: () => {
      user.nopass = false;
      user.passwords.clear();
    },
    reset: () => Object.assign(user, fresh()),
    allcommands: () => {
      user.commands = ['+@all'];
    },
    nocommands: () => {
      user.commands = ['-@all'];
    },
    allkeys: () => {
      user.keys = ['*'];
    },
    resetkeys: () => {
      user.keys = [];
    },
    allchannels: () => {
      user.channels = ['*'];
    },
    resetchannels: () => {
      user.channels = [];
    },
  };
  const reset = Object.hasOwn(resets, word) ? resets[word] : undefined;
  if (reset !== undefined) {
    reset();
    return;
  }
  const isHash = /^[0-9a-f]{64}$/.test(rest);
  if (word.startsWith('>')) {
    user.nopass = false;
    user.passwords.add(sha256(rest));
  } else if (word.startsWith('#') && isHash) {
    user.nopass = false;
    user.passwords.add(rest);
  } else if (word.startsWith('<') || (word.startsWith('!') && isHash)) {
    if (!user.passwords.delete(word.startsWith('<') ? sha256(rest) : rest))
      throw wrong(rule, 'The password you are trying to remove from the user does not exist');
  } else if (word.startsWith('~')) user.keys.push(rest);
  else if (word.startsWith('&')) user.channels.push(rest);
  else if (/^[+-]@all$/.test(word)) user.commands = [word];
  else if (/^[+-]@/.test(word)) {
    if (!categories.has(word.slice(2))) throw wrong(rule, 'Unknown command or category name in ACL');
    user.commands.push(word);
  } else if (/^[+-][a-z]/.test(word)) user.commands.push(word);
  else throw wrong(rule, 'Syntax error');
}

function mayRun({ commands }: User, command: string): boolean {
  const [parent = ''] = command.split('|');
  let may = false;
  for (const rule of commands) {
    const what = rule.slice(1);
    const fits = what.startsWith('@')
      ? what === '@all' || categoriesOf[command]?.includes(what.slice(1)) === true
      : what === command || what === parent;
    if (fits) may = rule.startsWith('+');
  }
  return may;
}

/** An ACL in which `default` may do everything without a password, as in a fresh server. */
export function createAcl(): Acl {
  const users = new Map<string, User>([
    ['default', { ...fresh(), on: true, nopass: true, commands: ['+@all'], keys: ['*'], channels: ['*'] }],
  ]);
  const described = ({ keys, channels }: User) => ({
    keys: keys.map((key) => `~${key}`).join(' '),
    channels: channels.map((channel) => `&${channel}`).join(' '),
  });
  return {
    setUser(name, rules) {
      if (name === '' || /[\s\0]/.test(name))
        throw new RespError("ERR Usernames can't contain spaces or null characters");
      const known = users.get(name);
      const user = known === undefined ? fresh() : structuredClone(known);
      for (const rule of rules) apply(user, rule);
      users.set(name, user);
    },
    deleteUsers(names) {
      if (names.includes('default')) throw new RespError("ERR The 'default' user cannot be removed");
      return names.filter((name) => users.delete(name)).length;
    },
    getUser(name) {
      const user = users.get(name);
      if (user === undefined) return null;
      return [
        ...['flags', [user.on ? 'on' : 'off', ...(user.nopass ? ['nopass'] : [])]],
        ...['passwords', [...user.passwords]],
        ...['commands', user.commands.join(' ')],
        ...['keys', described(user).keys],
        ...['channels', described(user).channels],
        ...['selectors', []],
      ];
    },
    list: () =>
      [...users].map(([name, user]) =>
        [
          ...['user', name, user.on ? 'on' : 'off', ...(user.nopass ? ['nopass'] : [])],
          ...[...user.passwords].map((hash) => `#${hash}`),
          ...Object.values(described(user)).filter((text) => text !== ''),
          ...user.commands,
        ].join(' '),
      ),
    names: () => [...users.keys()],
    knows(name, password) {
      const user = users.get(name);
      return user?.on === true && (user.nopass || user.passwords.has(sha256(password)));
    },
    refusal(name, command) {
      const user = users.get(name) ?? fresh();
      const asked = nameOf(command);
      if (!mayRun(user, asked))
        return new RespError(`NOPERM User ${name} has no permissions to run the '${asked}' command`);
      const [, ...rest] = command;
      const keys = keyed.has(asked) ? (asked === 'del' || asked === 'exists' ? rest : rest.slice(0, 1)) : [];
      return keys.every((key) => user.keys.some((pattern) => matches(pattern, key)))
        ? undefined
        : new RespError('NOPERM No permissions to access a key');
    },
  };
}
