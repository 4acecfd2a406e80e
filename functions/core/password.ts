/**
 * The tightest rule of all vendors at once: 32 characters of `[A-Za-z0-9_-]` (192 bits), a letter first, every class
 * present. In this alphabet the URL, form, JSON and SQL spellings are the text itself.
 */
const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-';
export const passwordLength = 32;
const classes = [/^[A-Za-z]/, /[A-Z]/, /[a-z]/, /[0-9]/, /[_-]/];

/** A password from `passwordLength` random bytes, or `redraw` when these bytes miss a class. */
export function passwordFrom(bytes: Uint8Array): string | 'redraw' {
  if (bytes.length < passwordLength)
    throw new RangeError(`got ${bytes.length} bytes, expected ${passwordLength}`);
  // 64 characters: six bits choose one without bias.
  const text = Array.from(bytes.subarray(0, passwordLength), (byte) => alphabet[byte & 63]).join('');
  return classes.every((needed) => needed.test(text)) ? text : 'redraw';
}
