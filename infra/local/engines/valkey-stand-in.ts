import { type AddressInfo, createServer, type Socket } from 'node:net';
import { createCommandReader, encodeResp, RespError, type RespValue } from './resp.ts';
import { createAcl, isKnown, nameOf } from './valkey-acl.ts';

/** A server in this process that speaks Valkey's protocol as far as logins, rights and a few commands go. */
export interface ValkeyStandIn {
  readonly port: number;
  close(): Promise<void>;
}

interface Connection {
  readonly id: number;
  readonly socket: Socket;
  readonly since: number;
  user: string | undefined;
  name: string;
  command: string;
}

const ok = '+OK\r\n';
const wrongPass = new RespError('WRONGPASS invalid username-password pair or user is disabled.');
const noAuth = new RespError('NOAUTH Authentication required.');
const syntax = new RespError('ERR syntax error');
/** Open to everybody, whatever their rights. */
const free = new Set(['auth', 'hello', 'quit']);

/** Starts it on a loopback port; `default` may do everything with this password. */
export async function startValkeyStandIn(admin: { user: string; password: string }): Promise<ValkeyStandIn> {
  const acl = createAcl();
  acl.setUser('default', ['reset', 'off']);
  acl.setUser(admin.user, ['on', `>${admin.password}`, 'allkeys', 'allchannels', '+@all']);
  const values = new Map<string, string>();
  const connections = new Set<Connection>();
  let lastId = 0;

  const line = ({ id, socket, since, user, name, command }: Connection): string => {
    const age = Math.floor((Date.now() - since) / 1000);
    return `id=${id} addr=${socket.remoteAddress}:${socket.remotePort} name=${name} age=${age} idle=0 flags=N db=0 cmd=${command} user=${user ?? '(superuser)'} lib-name= lib-ver=\n`;
  };

  /** Ends connections after the reply that may be due to one of them. */
  const end = (chosen: readonly Connection[]): void => {
    for (const { socket } of chosen) setImmediate(() => socket.destroy());
  };

  function kill(filters: readonly string[], self: Connection): RespValue {
    if (filters.length === 0 || filters.length % 2 === 1) return syntax;
    let chosen = [...connections];
    let skipMe = true;
    for (let at = 0; at < filters.length; at += 2) {
      const [filter = '', value = ''] = filters.slice(at, at + 2);
      if (/^user$/i.test(filter)) {
        if (!acl.names().includes(value)) return new RespError(`ERR No such user '${value}'`);
        chosen = chosen.filter(({ user }) => user === value);
      } else if (/^id$/i.test(filter)) chosen = chosen.filter(({ id }) => id === Number(value));
      else if (/^skipme$/i.test(filter)) skipMe = /^yes$/i.test(value);
      else return syntax;
    }
    if (skipMe) chosen = chosen.filter((connection) => connection !== self);
    end(chosen);
    return chosen.length;
  }

  const authenticate = (connection: Connection, user: string, password: string): boolean => {
    if (!acl.knows(user, password)) return false;
    connection.user = user;
    return true;
  };

  function run(connection: Connection, command: readonly string[]): string {
    const [first = '', second = '', third = '', ...more] = command;
    const name = nameOf(command);
    if (name === 'auth') {
      const [user, password] = command.length > 2 ? [second, third] : ['default', second];
      return authenticate(connection, user, password) ? ok : encodeResp(wrongPass);
    }
    if (name === 'hello') {
      if (second !== '' && second !== '2')
        return encodeResp(new RespError('NOPROTO unsupported protocol version'));
      const at = command.findIndex((word) => /^auth$/i.test(word));
      if (at > 0 && !authenticate(connection, command[at + 1] ?? '', command[at + 2] ?? ''))
        return encodeResp(wrongPass);
      if (connection.user === undefined) return encodeResp(noAuth);
      return encodeResp(['server', 'valkey', 'version', '8.0.0', 'proto', 2, 'id', connection.id]);
    }
    if (name === 'quit') {
      end([connection]);
      return ok;
    }
    if (connection.user === undefined) return encodeResp(noAuth);
    if (!isKnown(command)) {
      const rest = command.slice(1).map((word) => `'${word}' `);
      return encodeResp(
        new RespError(`ERR unknown command '${first}', with args beginning with: ${rest.join('')}`),
      );
    }
    connection.command = name;
    const refusal = free.has(name) ? undefined : acl.refusal(connection.user, command);
    if (refusal !== undefined) return encodeResp(refusal);
    switch (name) {
      case 'ping':
        return second === '' ? '+PONG\r\n' : encodeResp(second);
      case 'get':
        return encodeResp(values.get(second) ?? null);
      case 'set':
        values.set(second, third);
        return ok;
      case 'del':
        return encodeResp(command.slice(1).filter((key) => values.delete(key)).length);
      case 'exists':
        return encodeResp(command.slice(1).filter((key) => values.has(key)).length);
      case 'select':
        return ok;
      case 'info':
        return encodeResp('# Server\r\nredis_version:7.2.4\r\nserver_name:valkey\r\n');
      case 'config|get':
        return encodeResp([]);
      case 'acl|whoami':
        return encodeResp(connection.user);
      case 'acl|list':
        return encodeResp(acl.list());
      case 'acl|users':
        return encodeResp(acl.names());
      case 'acl|getuser':
        return encodeResp(acl.getUser(third));
      case 'acl|setuser':
        acl.setUser(third, more);
        return ok;
      case 'acl|deluser': {
        const names = [third, ...more];
        const deleted = acl.deleteUsers(names);
        end([...connections].filter(({ user }) => user !== undefined && names.includes(user)));
        return encodeResp(deleted);
      }
      case 'client|id':
        return encodeResp(connection.id);
      case 'client|setname':
        connection.name = third;
        return ok;
      case 'client|getname':
        return encodeResp(connection.name === '' ? null : connection.name);
      case 'client|info':
        return encodeResp(line(connection));
      case 'client|list':
        return third === ''
          ? encodeResp([...connections].map(line).join(''))
          : encodeResp(new RespError('ERR syntax error'));
      case 'client|kill':
        return encodeResp(kill([third, ...more], connection));
      default:
        return encodeResp(syntax);
    }
  }

  const server = createServer((socket) => {
    lastId += 1;
    const connection: Connection = {
      id: lastId,
      socket,
      since: Date.now(),
      user: undefined,
      name: '',
      command: '',
    };
    connections.add(connection);
    socket.setNoDelay(true);
    socket.on('error', () => {}); // a peer that goes away is no news
    socket.once('close', () => connections.delete(connection));
    const read = createCommandReader();
    socket.on('data', (chunk: Buffer) => {
      try {
        for (const command of read(chunk)) socket.write(answer(connection, command));
      } catch {
        socket.end(encodeResp(new RespError('ERR Protocol error')));
      }
    });
  });
  const answer = (connection: Connection, command: readonly string[]): string => {
    try {
      return run(connection, command);
    } catch (error) {
      if (error instanceof RespError) return encodeResp(error);
      throw error;
    }
  };
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject).listen(0, '127.0.0.1', resolve);
  });
  return {
    port: (server.address() as AddressInfo).port,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        for (const { socket } of connections) socket.destroy();
      }),
  };
}
