//! Another input from a given one: a few small changes of the kinds that decoders stumble over.

use crate::random::Random;

/// Changes to one input at most.
const CHANGES_MAX: usize = 6;

/// Inputs do not grow beyond.
const BYTES_MAX: usize = 64 << 10;

/// Lengths and counts at the edges of their types, and of limits that are powers of two.
const NUMBERS: [u64; 16] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0x8000,
    0xffff,
    0x00ff_ffff,
    0x0fff_ffff,
    0x1000_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    0xffff_ffff_ffff_ffff,
];

/// Changes `input`; parts of `others` and of `words` may come into it.
pub(crate) fn mutate(
    input: &mut Vec<u8>,
    others: &[Vec<u8>],
    words: &[String],
    random: &mut Random,
) {
    for _ in 0..=random.below(CHANGES_MAX) {
        change(input, others, words, random);
    }
    input.truncate(BYTES_MAX);
}

fn change(input: &mut Vec<u8>, others: &[Vec<u8>], words: &[String], random: &mut Random) {
    let at = random.below(input.len() + 1);
    let length = 1 + random.below(16.min(input.len().max(1)));
    let range = at..(at + length).min(input.len());
    match random.below(if words.is_empty() { 11 } else { 15 }) {
        0 if !range.is_empty() => input[at] ^= 1 << random.below(8),
        1 if !range.is_empty() => input[at] = random.next() as u8,
        2 if !range.is_empty() => {
            let by = 1 + random.below(4) as u8;
            input[at] = if random.below(2) == 0 {
                input[at].wrapping_add(by)
            } else {
                input[at].wrapping_sub(by)
            };
        }
        3 | 4 => overwrite(input, at, &number(random)),
        5 => input.truncate(at),
        6 => {
            input.drain(range);
        }
        7 => {
            let again = input[range].to_vec();
            insert(input, at, &again);
        }
        8 => {
            let bytes: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
            insert(input, at, &bytes);
        }
        9 => insert(input, at, &number(random)),
        10 => {
            if let Some(other) = random.pick(others) {
                let begin = random.below(other.len() + 1);
                let end = begin + random.below(other.len() - begin + 1);
                let part = other[begin..end].to_vec();
                if random.below(2) == 0 {
                    input.truncate(at);
                }
                insert(input, at, &part);
            }
        }
        _ => {
            if let Some(word) = random.pick(words) {
                if random.below(2) == 0 {
                    input.drain(range);
                }
                insert(input, at, word.as_bytes());
            }
        }
    }
}

/// A number as formats write it: little endian, big endian, or in protobuf's groups of seven bits.
fn number(random: &mut Random) -> Vec<u8> {
    let number = match random.below(4) {
        0 => random.next() >> random.below(64),
        _ => NUMBERS[random.below(NUMBERS.len())],
    };
    let width = [1, 2, 4, 8][random.below(4)];
    match random.below(3) {
        0 => number.to_le_bytes()[..width].to_vec(),
        1 => number.to_be_bytes()[8 - width..].to_vec(),
        _ => varint(number),
    }
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

fn overwrite(input: &mut [u8], at: usize, with: &[u8]) {
    let places = input[at..].iter_mut().zip(with);
    places.for_each(|(place, byte)| *place = *byte);
}

fn insert(input: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    let at = at.min(input.len());
    input.splice(at..at, bytes.iter().copied());
}
