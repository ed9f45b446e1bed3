/** Prose of our own: enough words to learn merges from. */
export const PROSE = `The lighthouse keeper wrote a line in his book every evening. He wrote the weather, the ships that had
passed, and what the sea had brought: a crate of oranges, a blue door, a letter that the water had made blank again.

"Nobody will ever read it," said the boy who brought the oil. "Then nobody will be disappointed," said the keeper, and he
wrote that down as well. It's a fine thing, he thought, to have a witness who can't spell.

In the third winter the lamp failed for the first time. The keeper stood at the window and counted the seconds between the
waves: seven, seven, nine, seven. He'd counted 1,024 of them when the boy came up the stairs with a lantern in each hand. They
hung the lanterns in the window, and they sang so that the ships would hear where the rocks were. Three ships passed in that
night, and each of them answered with its bell. The keeper wrote: three ships; two voices; no moon.

Years later the boy became the keeper, and the first thing he did was to read the book from the beginning to the end. It
took him the whole winter. The weather was the same as ever, the ships had the same names as the ships that were passing
now, and on the last page, in another hand, somebody had written: I have read it, and I wasn't disappointed.
`;

/** Texts that trip tokenizers. */
export const ODD_TEXTS: readonly string[] = [
  '',
  ' ',
  '\n',
  '\r\n\r\n',
  '  two  spaces   three ',
  'tab\tand\u00a0no-break\u2028line\u2029paragraph\u0085next',
  'emoji 😀👩‍👩‍👧‍👦🇫🇷 e\u0301 é Ω ﬁ',
  '漢字かなカナ한국어 עברית العربية ไทย',
  '\u0000\u0001\u001f\u007f\ufeff\uffff',
  '</s><s><|endoftext|><unk>[CLS]',
  "it's we'll they'd I'M",
  '123 4567 ½ Ⅷ ٣',
  '\u2581under\u2581score',
  'a'.repeat(400),
];
