import { passwordFrom, passwordLength } from '../core/password.ts';
import type { Ports } from '../core/ports.ts';
import { Sensitive } from '../core/sensitive.ts';

/**
 * A random password that is stored nowhere and lives in this call only. A user has it while it holds rights that rekey still has
 * to take away. If the call dies, no stored password logs in as that user.
 */
export async function throwAwayPassword({ randomBytes }: Pick<Ports, 'randomBytes'>): Promise<Sensitive> {
  for (;;) {
    const password = passwordFrom(await randomBytes(passwordLength));
    if (password !== 'redraw') return new Sensitive(password);
  }
}
