import type { Endpoint, Login, UserPassword } from '../core/provider.ts';

/** Asked once a visit, as a provider is opened for one. What failed is asked again. */
export function askedOnce<Answer>(ask: () => Promise<Answer>): () => Promise<Answer> {
  let asked: Promise<Answer> | undefined;
  return () => {
    asked ??= ask().catch((error: unknown) => {
      asked = undefined;
      throw error;
    });
    return asked;
  };
}

/**
 * The one place where a name and password meet an address: the vendor's own, of this visit. Whatever else the argument holds stays
 * behind, so that a stored value never says where a password is sent, an administrator's least of all.
 */
export const sentHome =
  (endpoint: () => Promise<Endpoint>) =>
  async ({ username, password }: UserPassword): Promise<Login> => ({
    ...(await endpoint()),
    username,
    password,
  });
