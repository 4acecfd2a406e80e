import { parseArgs } from 'node:util';
import { createMovableClock } from './clock.ts';
import { createCredentials, runDemo } from './demo.ts';
import { isGood, json, table } from './report.ts';
import { startWorld, type World } from './world.ts';

const usage = `usage: npm start [-- options]
  --json      print one JSON document instead of the timeline and the table
  --stay      only create the credentials, keep everything up and print how to reach it; Ctrl-C ends it
  --verbose   print the functions' log lines, too`;

/** Exit codes: 0 all is well; 1 a login failed or a user is left over; 2 the command line is wrong; 130 on Ctrl-C before the end. */
process.exitCode = await main();

async function main(): Promise<number> {
  const options = commandLine();
  if (options === undefined) return 2;
  const clock = createMovableClock();
  const startedAt = Date.now();
  const startedOn = clock.now().getTime();
  const say = (subject: string, message: string): void => {
    const seconds = ((Date.now() - startedAt) / 1_000).toFixed(1).padStart(5);
    const day = String(Math.floor((clock.now().getTime() - startedOn) / 86_400_000)).padStart(2);
    if (!options.json) process.stdout.write(`${seconds} s  day ${day}  ${subject.padEnd(17)} ${message}\n`);
  };
  const ending = new AbortController();
  const interrupted = Promise.withResolvers<void>();
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.on(signal, () => {
      ending.abort();
      interrupted.resolve();
    });

  let world: World | undefined;
  try {
    world = await startWorld({
      clock,
      onProgress: (message) => say('this machine', message),
      log: ({ functionName, line }) => {
        if (options.verbose) process.stderr.write(`${functionName}  ${line}\n`);
      },
    });
    ending.signal.throwIfAborted();
    const demo = { tell: say, signal: ending.signal };
    if (options.stay) {
      await createCredentials(world, demo);
      process.stderr.write(howToReach(world));
      await interrupted.promise;
      return 0;
    }
    const outcome = await runDemo(world, demo);
    process.stdout.write(options.json ? `${json(outcome)}\n` : `\n${table(outcome)}\n`);
    return isGood(outcome) ? 0 : 1;
  } catch (error) {
    // Ctrl-C reaches the whole group of processes: whatever failed after it failed because of it.
    if (ending.signal.aborted) return 130;
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
    return 1;
  } finally {
    await world?.stop();
  }
}

function commandLine(): { json: boolean; stay: boolean; verbose: boolean } | undefined {
  try {
    const { values } = parseArgs({
      options: {
        json: { type: 'boolean', default: false },
        stay: { type: 'boolean', default: false },
        verbose: { type: 'boolean', default: false },
      },
    });
    return values;
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n${usage}\n`);
    return undefined;
  }
}

function howToReach({ deployment, specs, caFile }: World): string {
  const secret = `rekey/${specs[0]?.name ?? ''}`;
  return `
Everything stays up until Ctrl-C. In another terminal:

  export AWS_ENDPOINT_URL=${deployment.endpointUrl} AWS_REGION=${deployment.region} AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local
  export PGSSLROOTCERT=${caFile} NODE_EXTRA_CA_CERTS=${caFile}
  aws secretsmanager list-secrets
  aws secretsmanager get-secret-value --secret-id ${secret}
  aws secretsmanager rotate-secret --secret-id ${secret}

`;
}
