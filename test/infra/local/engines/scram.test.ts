import { describe, expect, test } from 'vitest';
import { matchesVerifier, scramVerifier } from '../../../../infra/local/engines/scram.ts';

describe('a SCRAM verifier', () => {
  test('is that of RFC 7677, section 3', () => {
    expect(scramVerifier('pencil', Buffer.from('W22ZaJ0SNY7soEsUEjb6gQ==', 'base64'))).toBe(
      'SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=',
    );
  });

  test('recognises its password and no other', () => {
    const verifier = scramVerifier('pencil');
    expect([matchesVerifier('pencil', verifier), matchesVerifier('pen', verifier)]).toEqual([true, false]);
  });

  test('differs each time, as its salt does', () => {
    expect(scramVerifier('pencil')).not.toBe(scramVerifier('pencil'));
  });
});
