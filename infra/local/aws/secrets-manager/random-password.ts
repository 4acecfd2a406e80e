import { pick, type Random } from '../random.ts';
import { refusals } from './errors.ts';
import type { Input } from './schemas.ts';

const lowercase = 'abcdefghijklmnopqrstuvwxyz';
const classes = {
  lowercase,
  uppercase: lowercase.toUpperCase(),
  digits: '0123456789',
  punctuation: '!"#$%&\'()*+,-./:;<=>?@[\\]^_`{|}~',
  space: ' ',
};

/** A password as GetRandomPassword makes it: 32 characters of every class unless asked otherwise. */
export function randomPassword(input: Input<'GetRandomPassword'>, random: Random): string {
  const length = input.PasswordLength ?? 32;
  const excluded = new Set(input.ExcludeCharacters ?? '');
  const alphabets = [
    input.ExcludeLowercase ? '' : classes.lowercase,
    input.ExcludeUppercase ? '' : classes.uppercase,
    input.ExcludeNumbers ? '' : classes.digits,
    input.ExcludePunctuation ? '' : classes.punctuation,
    input.IncludeSpace ? classes.space : '',
  ]
    .map((alphabet) => [...alphabet].filter((character) => !excluded.has(character)))
    .filter((alphabet) => alphabet.length > 0);
  if (alphabets.length === 0) throw refusals.passwordImpossible();
  const required = (input.RequireEachIncludedType ?? true) ? alphabets : [];
  if (length < required.length) throw refusals.passwordTooShort();
  const any = alphabets.flat();
  const characters = Array.from({ length }, (_, index) => pick(random, required[index] ?? any));
  // Shuffled, so that the required ones do not stand in front.
  for (let last = characters.length - 1; last > 0; last -= 1) {
    const other = Math.floor(random() * (last + 1));
    [characters[last], characters[other]] = [characters[other] ?? '', characters[last] ?? ''];
  }
  return characters.join('');
}
