//! Text that was UTF-8, read as another encoding and stored as UTF-8 again: detected by a vote over the whole document
//! and undone. A vote is needed because single runs of healthy text can look damaged (`–§` is valid UTF-8 in Mac Roman).

use std::fmt;

/// An encoding text is commonly misread as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Mac OS Roman.
    MacRoman,
    /// Windows-1252 as browsers map it: the five unused bytes are C1 controls.
    Windows1252,
}

/// Mac OS Roman 0x80 to 0xFF (Apple's mapping, unicode.org/Public/MAPPINGS/VENDORS/APPLE/ROMAN.TXT).
const MAC_ROMAN: &str = "ÄÅÇÉÑÖÜáàâäãåçéèêëíìîïñóòôöõúùûü†°¢£§•¶ß®©™´¨≠ÆØ∞±≤≥¥µ∂∑∏π∫ªºΩæø¿¡¬√ƒ≈∆«»…\u{a0}ÀÃÕŒœ–—“”‘’÷◊ÿŸ⁄€‹›ﬁﬂ‡·‚„‰ÂÊÁËÈÍÎÏÌÓÔ\u{f8ff}ÒÚÛÙıˆ˜¯˘˙˚¸˝˛ˇ";
/// Windows-1252 0x80 to 0x9F (WHATWG encoding standard, index windows-1252).
const WINDOWS_1252: &str = "€\u{81}‚ƒ„…†‡ˆ‰Š‹Œ\u{8d}Ž\u{8f}\u{90}‘’“”•–—˜™š›œ\u{9d}žŸ";

impl Encoding {
    /// The character this encoding gives a byte.
    pub fn char_of(self, byte: u8) -> char {
        let table = match self {
            Self::MacRoman => MAC_ROMAN,
            Self::Windows1252 if byte < 0xa0 => WINDOWS_1252,
            Self::Windows1252 => return char::from(byte),
        };
        match byte.checked_sub(0x80) {
            None => char::from(byte),
            Some(i) => table.chars().nth(usize::from(i)).unwrap_or(char::REPLACEMENT_CHARACTER),
        }
    }

    fn byte_of(self, c: char) -> Option<u8> {
        let table = match self {
            Self::MacRoman => MAC_ROMAN,
            Self::Windows1252 if ('\u{a0}'..='\u{ff}').contains(&c) => return u8::try_from(u32::from(c)).ok(),
            Self::Windows1252 => WINDOWS_1252,
        };
        table.chars().position(|t| t == c).and_then(|i| u8::try_from(i + 0x80).ok())
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MacRoman => "Mac OS Roman",
            Self::Windows1252 => "Windows-1252",
        })
    }
}

/// T3: the repaired text and what it had been misread as, or none when the document is healthy. Undoes up to two rounds.
pub fn repair(text: &str) -> Option<(String, Encoding)> {
    let (once, encoding) = repair_once(text)?;
    Some(repair_once(&once).map_or((once, encoding), |(twice, _)| (twice, encoding)))
}

/// Repairs when at least four in five non-ASCII runs come out as shorter valid UTF-8 under one encoding and at least one
/// of them is a character that takes three or four bytes.
fn repair_once(text: &str) -> Option<(String, Encoding)> {
    if text.is_ascii() {
        return None;
    }
    [Encoding::MacRoman, Encoding::Windows1252].into_iter().find_map(|encoding| {
        let (mut runs, mut good, mut wide) = (0usize, 0usize, false);
        let mut out = String::with_capacity(text.len());
        for (ascii, piece) in pieces(text) {
            match (!ascii).then(|| decode_run(piece, encoding)) {
                None => out.push_str(piece),
                Some(None) => {
                    runs += 1;
                    out.push_str(piece);
                }
                Some(Some(fixed)) => {
                    runs += 1;
                    good += 1;
                    wide |= fixed.chars().any(|c| c >= '\u{800}');
                    out.push_str(&fixed);
                }
            }
        }
        (wide && good * 5 >= runs * 4).then_some((out, encoding))
    })
}

fn decode_run(run: &str, encoding: Encoding) -> Option<String> {
    let bytes: Option<Vec<u8>> = run.chars().map(|c| encoding.byte_of(c)).collect();
    let fixed = String::from_utf8(bytes?).ok()?;
    (fixed.chars().count() < run.chars().count()).then_some(fixed)
}

/// Maximal runs of ASCII and of other characters, in order.
fn pieces(text: &str) -> impl Iterator<Item = (bool, &str)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let first = rest.bytes().next()?;
        let ascii = first.is_ascii();
        let end = rest.bytes().position(|b| b.is_ascii() != ascii).unwrap_or(rest.len());
        let (piece, tail) = rest.split_at(end);
        rest = tail;
        Some((ascii, piece))
    })
}
