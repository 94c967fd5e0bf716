//! Finds personal data and secrets in values that nobody declared sensitive, and writes over them where they stand.
//!
//! It is a second layer: it looks at what a value *says*, cell by cell, and a value that is split, encoded or computed with passes it.
//! What holds against somebody who tries is the mask on a declared column ([`sql`](crate::sql)).
//!
//! What is found is overwritten byte by byte: lengths, formats, quoting and the cells around it stay as they were, so that rows, COPY
//! lines, JSON and arrays need no encoder. Digits become 9 (a leading 0 would be no JSON number), letters `x`.
//!
//! What a newcomer gets wrong: every find passes a validator (check digits, known prefixes, known countries), never its looks alone; and
//! no search looks further than a fixed number of bytes from where it began, so that the time is linear in the value's length.

use std::fmt;
use std::ops::Range;

/// What kind of thing was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// An e-mail address (RFC 5321, without quoted local parts).
    Email,
    /// A payment card's number: issuer's prefix, length, Luhn (ISO/IEC 7812-1).
    Card,
    /// A bank account: country, its length, modulo 97 (ISO 13616).
    Iban,
    /// An international telephone number: `+`, a country code in use, 8 to 15 digits (ITU-T E.164).
    Phone,
    /// A national identity number of a kind whose form or check digits rule chance out.
    NationalId,
    /// A key or token with a prefix of its issuer's, a signed JSON token, a private key in PEM.
    Secret,
}

impl Class {
    /// All of them, in the order in which they are told.
    pub const ALL: [Class; 6] =
        [Class::Email, Class::Card, Class::Iban, Class::Phone, Class::NationalId, Class::Secret];

    /// As configuration and ledger spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Class::Email => "email",
            Class::Card => "card",
            Class::Iban => "iban",
            Class::Phone => "phone",
            Class::NationalId => "national_id",
            Class::Secret => "secret",
        }
    }
}

/// Which classes are looked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Classes(u8);

impl Classes {
    /// Whether any is.
    #[must_use]
    pub fn any(self) -> bool {
        self.0 != 0
    }

    fn has(self, class: Class) -> bool {
        self.0 & (1 << class as u8) != 0
    }
}

impl FromIterator<Class> for Classes {
    fn from_iter<T: IntoIterator<Item = Class>>(classes: T) -> Classes {
        Classes(classes.into_iter().fold(0, |all, class| all | 1 << class as u8))
    }
}

/// How many of each class were found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Found([u64; Class::ALL.len()]);

impl Found {
    /// Whether anything was.
    #[must_use]
    pub fn any(&self) -> bool {
        self.0.iter().any(|count| *count > 0)
    }

    /// How many of a class were.
    #[must_use]
    pub fn of(&self, class: Class) -> u64 {
        self.0[class as usize]
    }

    /// Counts these as well.
    pub fn add(&mut self, more: &Found) {
        self.0.iter_mut().zip(more.0).for_each(|(count, more)| *count = count.saturating_add(more));
    }
}

/// `email 3, card 1`.
impl fmt::Display for Found {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for class in Class::ALL.into_iter().filter(|class| self.of(*class) > 0) {
            let comma = if std::mem::take(&mut first) { "" } else { ", " };
            write!(out, "{comma}{} {}", class.name(), self.of(class))?;
        }
        Ok(())
    }
}

/// The longest local part of an address, and the longest domain (RFC 5321, 4.5.3.1).
const LOCAL_BYTES_MAX: usize = 64;
const DOMAIN_BYTES_MAX: usize = 255;
/// The shortest thing that can be found: `a@b.co`.
const BYTES_MIN: usize = 6;
/// The most bytes of a key, a token or a PEM that are overwritten as one.
const SECRET_BYTES_MAX: usize = 16 << 10;

/// Overwrites in `value` whatever of these classes is found.
pub fn overwrite(value: &mut [u8], classes: Classes, found: &mut Found) {
    if value.len() < BYTES_MIN {
        return;
    }
    let mut at = 0;
    while at < value.len() {
        let (class, range) = match find(value, at, classes) {
            Some(find) => find,
            None => {
                at += 1;
                continue;
            }
        };
        found.0[class as usize] = found.0[class as usize].saturating_add(1);
        at = range.end;
        hide(class, &mut value[range]);
    }
}

/// What is found to begin at `at`, or for an address to have its `@` there.
fn find(value: &[u8], at: usize, classes: Classes) -> Option<(Class, Range<usize>)> {
    let byte = value[at];
    let begins = at == 0 || !is_word(value[at - 1]);
    let in_class = |class: Class, range: Option<Range<usize>>| range.map(|range| (class, range));
    let try_class = |class: Class, find: fn(&[u8], usize) -> Option<Range<usize>>| {
        if classes.has(class) { in_class(class, find(value, at)) } else { None }
    };
    match byte {
        b'@' => try_class(Class::Email, email),
        b'+' => try_class(Class::Phone, phone),
        b'-' => try_class(Class::Secret, pem),
        b'0'..=b'9' if begins => try_class(Class::Secret, secret)
            .or_else(|| try_class(Class::Card, card))
            .or_else(|| try_class(Class::NationalId, national_id)),
        byte if byte.is_ascii_alphabetic() && begins => try_class(Class::Secret, secret)
            .or_else(|| try_class(Class::Iban, iban))
            .or_else(|| try_class(Class::NationalId, national_id)),
        _ => None,
    }
}

/// Writes over a find, leaving its form and the little by which a person can tell one from another.
fn hide(class: Class, bytes: &mut [u8]) {
    let keep = match class {
        Class::Card => 4,
        _ => 0,
    };
    let hidden = bytes.len() - keep;
    let country = if class == Class::Iban { 2 } else { 0 };
    for byte in &mut bytes[country..hidden] {
        *byte = match *byte {
            b'0'..=b'9' => b'9',
            b'a'..=b'z' | b'A'..=b'Z' => b'x',
            b'_' | b'%' | b'=' | b'/' | b'!' | b'#' | b'$' | b'&' | b'*' | b'?' | b'^' | b'~' => b'x',
            // Of an address and a number, what divides its parts stays.
            other => other,
        };
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// Whether nothing goes on at `end`.
fn ends(value: &[u8], end: usize) -> bool {
    value.get(end).is_none_or(|byte| !is_word(*byte))
}

// ---- e-mail --------------------------------------------------------------------------------------------------------

fn email(value: &[u8], at: usize) -> Option<Range<usize>> {
    let is_local = |byte: &u8| byte.is_ascii_alphanumeric() || b".!#$%&'*+/=?^_`{|}~-".contains(byte);
    let mut start =
        at - value[..at].iter().rev().take(LOCAL_BYTES_MAX + 1).take_while(|byte| is_local(byte)).count();
    if at - start > LOCAL_BYTES_MAX {
        return None;
    }
    // What stands before an address in a text is more often a mark than a part of it.
    while start < at && !value[start].is_ascii_alphanumeric() && value[start] != b'_' {
        start += 1;
    }
    let local = &value[start..at];
    if local.is_empty() || local.last() == Some(&b'.') || local.windows(2).any(|two| two == b"..") {
        return None;
    }
    let is_domain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    let length = value[at + 1..].iter().take(DOMAIN_BYTES_MAX + 1).take_while(|byte| is_domain(byte)).count();
    if length > DOMAIN_BYTES_MAX {
        return None;
    }
    let mut end = at + 1 + length;
    // The end of a sentence is no part of it.
    while end > at + 1 && !value[end - 1].is_ascii_alphanumeric() {
        end -= 1;
    }
    let domain = &value[at + 1..end];
    let mut labels = domain.split(|byte| *byte == b'.');
    let is_label = |label: &[u8]| {
        (1..=63).contains(&label.len()) && label.first() != Some(&b'-') && label.last() != Some(&b'-')
    };
    let top = domain.rsplit(|byte| *byte == b'.').next()?;
    let is_top = top.len() >= 2
        && (top.iter().all(u8::is_ascii_alphabetic) || top.to_ascii_lowercase().starts_with(b"xn--"));
    (domain.contains(&b'.') && labels.all(is_label) && is_top && ends(value, end)).then_some(start..end)
}

// ---- numbers -------------------------------------------------------------------------------------------------------

/// The most digits that anything here has, and one more by which a longer number shows.
const DIGITS_MAX: usize = 20;

/// A number's digits.
#[derive(Default)]
struct Digits {
    digits: [u8; DIGITS_MAX],
    count: usize,
}

impl Digits {
    fn push(&mut self, digit: u8) {
        self.digits[self.count] = digit;
        self.count += 1;
    }
}

impl std::ops::Deref for Digits {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.digits[..self.count]
    }
}

/// Digits from `at` on, with single separators of `between` among them; and where the last one ends.
fn digits(value: &[u8], at: usize, between: &[u8]) -> (Digits, usize) {
    let (mut digits, mut end, mut next) = (Digits::default(), at, at);
    while digits.count < DIGITS_MAX {
        match value.get(next) {
            Some(digit @ b'0'..=b'9') => {
                digits.push(digit - b'0');
                next += 1;
                end = next;
            }
            Some(byte) if between.contains(byte) && next == end && next > at => next += 1,
            _ => break,
        }
    }
    (digits, end)
}

/// A number stands alone: it is no part of a longer one, or of one with a fraction.
fn stands_alone(value: &[u8], range: &Range<usize>) -> bool {
    let beside = |byte: Option<&u8>, further: Option<&u8>| {
        byte.is_some_and(|byte| matches!(byte, b'.' | b',' | b'-' | b'/' | b':'))
            && further.is_some_and(u8::is_ascii_digit)
    };
    let before = range.start.checked_sub(1).and_then(|at| value.get(at));
    let before_that = range.start.checked_sub(2).and_then(|at| value.get(at));
    ends(value, range.end)
        && before != Some(&b'+')
        && !beside(before, before_that)
        && !beside(value.get(range.end), value.get(range.end + 1))
}

fn card(value: &[u8], at: usize) -> Option<Range<usize>> {
    // One separator throughout, if any: `4111 1111 1111 1111`, `4111-1111-…`.
    let separator: &[u8] = match (value.get(at + 4), value.get(at + 5)) {
        (Some(b' '), Some(b'0'..=b'9')) => b" ",
        (Some(b'-'), Some(b'0'..=b'9')) => b"-",
        _ => b"",
    };
    let (digits, end) = digits(value, at, separator);
    let known = is_issued(&digits) && digits.iter().any(|digit| *digit != digits[0]) && luhn(&digits);
    (known && stands_alone(value, &(at..end))).then_some(at..end)
}

/// The prefixes and lengths of card schemes in use.
fn is_issued(digits: &[u8]) -> bool {
    let prefix = |length: usize| {
        digits.iter().take(length).fold(0u32, |number, digit| number * 10 + u32::from(*digit))
    };
    match digits.len() {
        14 => matches!(prefix(3), 300..=305 | 309) || matches!(prefix(2), 36 | 38 | 39),
        15 => matches!(prefix(2), 34 | 37),
        16 => {
            prefix(1) == 4
                || matches!(prefix(2), 51..=55 | 65)
                || matches!(prefix(4), 2221..=2720 | 3528..=3589 | 6011)
                || matches!(prefix(3), 644..=649)
                || prefix(2) == 62
        }
        17..=19 => prefix(2) == 62,
        _ => false,
    }
}

fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, digit)| match (place % 2, u32::from(*digit)) {
            (0, digit) => digit,
            (_, digit) => digit / 5 + digit * 2 % 10,
        })
        .sum();
    sum.is_multiple_of(10)
}

/// Country codes in use (ITU-T E.164, list of 2016 with its amendments), told by their first digits: those of two digits; all
/// others have one (1, 7) or three.
const COUNTRY_CODES_OF_TWO: [u8; 43] = [
    20, 27, 30, 31, 32, 33, 34, 36, 39, 40, 41, 43, 44, 45, 46, 47, 48, 49, 51, 52, 53, 54, 55, 56, 57, 58,
    60, 61, 62, 63, 64, 65, 66, 81, 82, 84, 86, 90, 91, 92, 93, 94, 95,
];

fn phone(value: &[u8], at: usize) -> Option<Range<usize>> {
    if at > 0 && (is_word(value[at - 1]) || matches!(value[at - 1], b'+' | b')' | b':')) {
        return None;
    }
    let mut found = Digits::default();
    let (mut next, mut end) = (at + 1, at + 1);
    // Between digits stand at most two marks: `+49 (0) 30-123`.
    while found.len() <= 15 {
        match value.get(next) {
            Some(digit @ b'0'..=b'9') => {
                found.push(digit - b'0');
                next += 1;
                end = next;
            }
            Some(b' ' | b'-' | b'.' | b'/' | b'(' | b')') if next - end < 2 && next > at + 1 => next += 1,
            _ => break,
        }
    }
    let [first, second, ..] = found[..] else { return None };
    let is_country = match first {
        1 => found.len() == 11 && (2..=9).contains(&second),
        7 => found.len() == 11,
        0 => false,
        _ => {
            let two = COUNTRY_CODES_OF_TWO.contains(&(first * 10 + second));
            let three = matches!(first * 10 + second, 21..=26 | 29 | 35 | 37 | 38 | 42 | 50 | 59 | 67..=69 | 85 | 88 | 96..=99);
            (two || three) && (9..=15).contains(&found.len())
        }
    };
    (is_country && ends(value, end)).then_some(at..end)
}

/// How long an IBAN of a country is (the registry of ISO 13616).
const IBAN_LENGTHS: &[(&[u8; 2], usize)] = &[
    (b"AD", 24),
    (b"AE", 23),
    (b"AL", 28),
    (b"AT", 20),
    (b"AZ", 28),
    (b"BA", 20),
    (b"BE", 16),
    (b"BG", 22),
    (b"BH", 22),
    (b"BI", 27),
    (b"BR", 29),
    (b"BY", 28),
    (b"CH", 21),
    (b"CR", 22),
    (b"CY", 28),
    (b"CZ", 24),
    (b"DE", 22),
    (b"DJ", 27),
    (b"DK", 18),
    (b"DO", 28),
    (b"EE", 20),
    (b"EG", 29),
    (b"ES", 24),
    (b"FI", 18),
    (b"FK", 18),
    (b"FO", 18),
    (b"FR", 27),
    (b"GB", 22),
    (b"GE", 22),
    (b"GI", 23),
    (b"GL", 18),
    (b"GR", 27),
    (b"GT", 28),
    (b"HN", 28),
    (b"HR", 21),
    (b"HU", 28),
    (b"IE", 22),
    (b"IL", 23),
    (b"IQ", 23),
    (b"IS", 26),
    (b"IT", 27),
    (b"JO", 30),
    (b"KW", 30),
    (b"KZ", 20),
    (b"LB", 28),
    (b"LC", 32),
    (b"LI", 21),
    (b"LT", 20),
    (b"LU", 20),
    (b"LV", 21),
    (b"LY", 25),
    (b"MC", 27),
    (b"MD", 24),
    (b"ME", 22),
    (b"MK", 19),
    (b"MN", 20),
    (b"MR", 27),
    (b"MT", 31),
    (b"MU", 30),
    (b"NI", 28),
    (b"NL", 18),
    (b"NO", 15),
    (b"OM", 23),
    (b"PK", 24),
    (b"PL", 28),
    (b"PS", 29),
    (b"PT", 25),
    (b"QA", 29),
    (b"RO", 24),
    (b"RS", 22),
    (b"RU", 33),
    (b"SA", 24),
    (b"SC", 31),
    (b"SD", 18),
    (b"SE", 24),
    (b"SI", 19),
    (b"SK", 24),
    (b"SM", 27),
    (b"SO", 23),
    (b"ST", 25),
    (b"SV", 28),
    (b"TL", 23),
    (b"TN", 24),
    (b"TR", 26),
    (b"UA", 29),
    (b"VA", 22),
    (b"VG", 24),
    (b"XK", 20),
    (b"YE", 30),
];

fn iban(value: &[u8], at: usize) -> Option<Range<usize>> {
    let country = value.get(at..at + 2)?.to_ascii_uppercase();
    let &(_, length) = IBAN_LENGTHS.iter().find(|(known, _)| known[..] == country[..])?;
    if !value.get(at + 2..at + 4)?.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let mut number = [0; 34];
    let (mut count, mut end, mut next) = (0, at, at);
    while count < length {
        match value.get(next) {
            Some(byte) if byte.is_ascii_alphanumeric() => {
                number[count] = byte.to_ascii_uppercase();
                count += 1;
                next += 1;
                end = next;
            }
            Some(b' ') if count.is_multiple_of(4) && next == end => next += 1,
            _ => return None,
        }
    }
    let rotated = number[4..length].iter().chain(&number[..4]);
    let rest = rotated.fold(0u32, |rest, byte| match byte {
        b'0'..=b'9' => (rest * 10 + u32::from(byte - b'0')) % 97,
        letter => (rest * 100 + u32::from(letter - b'A') + 10) % 97,
    });
    (rest == 1 && ends(value, end)).then_some(at..end)
}

// ---- national identity numbers -------------------------------------------------------------------------------------

fn national_id(value: &[u8], at: usize) -> Option<Range<usize>> {
    [us_social_security, br_cpf, es_dni, fr_nir, it_codice_fiscale, gb_national_insurance]
        .into_iter()
        .find_map(|find| find(value, at).filter(|range| stands_alone(value, range)))
}

/// The bytes from `at` on that have a form: `9` for a digit, `A` for a letter, others for themselves.
fn formed<'v>(value: &'v [u8], at: usize, form: &str) -> Option<&'v [u8]> {
    let bytes = value.get(at..at + form.len())?;
    let fits = bytes.iter().zip(form.bytes()).all(|(byte, form)| match form {
        b'9' => byte.is_ascii_digit(),
        b'A' => byte.is_ascii_alphabetic(),
        form => *byte == form,
    });
    fits.then_some(bytes)
}

fn number(digits: &[u8]) -> u64 {
    let digits = digits.iter().filter(|byte| byte.is_ascii_digit());
    digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
}

/// United States: with its hyphens only; areas, groups and serials that are never issued are none.
fn us_social_security(value: &[u8], at: usize) -> Option<Range<usize>> {
    let bytes = formed(value, at, "999-99-9999")?;
    let (area, group, serial) = (number(&bytes[..3]), number(&bytes[4..6]), number(&bytes[7..]));
    (!matches!(area, 0 | 666 | 900..) && group != 0 && serial != 0).then_some(at..at + 11)
}

/// Brazil: with its marks; two check digits modulo 11.
fn br_cpf(value: &[u8], at: usize) -> Option<Range<usize>> {
    let bytes = formed(value, at, "999.999.999-99")?;
    let digits: Vec<u64> =
        bytes.iter().filter(|byte| byte.is_ascii_digit()).map(|byte| u64::from(byte - b'0')).collect();
    let check = |count: usize| {
        let sum: u64 = digits[..count]
            .iter()
            .zip((2..=count as u64 + 1).rev())
            .map(|(digit, weight)| digit * weight)
            .sum();
        digits[count] == sum * 10 % 11 % 10
    };
    (check(9) && check(10) && digits.iter().any(|digit| *digit != digits[0])).then_some(at..at + 14)
}

/// Spain: DNI and NIE, whose letter is the number modulo 23.
fn es_dni(value: &[u8], at: usize) -> Option<Range<usize>> {
    const LETTERS: &[u8; 23] = b"TRWAGMYFPDXBNJZSQVHLCKE";
    let bytes = formed(value, at, "99999999A").or_else(|| {
        formed(value, at, "A9999999A")
            .filter(|bytes| matches!(bytes[0].to_ascii_uppercase(), b'X' | b'Y' | b'Z'))
    })?;
    let foreign = match bytes[0].to_ascii_uppercase() {
        letter @ b'X'..=b'Z' => u64::from(letter - b'X') * 10_000_000,
        _ => 0,
    };
    let rest = (foreign + number(&bytes[..8])) % 23;
    let letter = LETTERS[usize::try_from(rest).ok()?];
    (bytes[8].to_ascii_uppercase() == letter).then_some(at..at + 9)
}

/// France: thirteen digits of which the first and the month have few values, and a key modulo 97.
fn fr_nir(value: &[u8], at: usize) -> Option<Range<usize>> {
    let (found, end) = digits(value, at, b" ");
    if found.len() != 15 {
        return None;
    }
    let whole = |digits: &[u8]| digits.iter().fold(0u64, |number, digit| number * 10 + u64::from(*digit));
    let month = whole(&found[3..5]);
    let valid = matches!(found[0], 1 | 2) && matches!(month, 1..=12 | 20..=42 | 50..=99);
    (valid && 97 - whole(&found[..13]) % 97 == whole(&found[13..])).then_some(at..end)
}

/// Italy: sixteen characters of a fixed form with a check letter.
fn it_codice_fiscale(value: &[u8], at: usize) -> Option<Range<usize>> {
    let bytes = formed(value, at, "AAAAAA99A99A999A")?.to_ascii_uppercase();
    const ODD: [u32; 26] =
        [1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23];
    let place = |byte: u8| if byte.is_ascii_digit() { byte - b'0' } else { byte - b'A' };
    let sum: u32 = bytes[..15]
        .iter()
        .enumerate()
        .map(|(at, byte)| if at % 2 == 0 { ODD[usize::from(place(*byte))] } else { u32::from(place(*byte)) })
        .sum();
    let month = b"ABCDEHLMPRST".contains(&bytes[8]);
    let day = matches!(number(&bytes[9..11]), 1..=31 | 41..=71);
    (month && day && u32::from(bytes[15] - b'A') == sum % 26).then_some(at..at + 16)
}

/// United Kingdom: two letters that are issued, six digits, A to D.
fn gb_national_insurance(value: &[u8], at: usize) -> Option<Range<usize>> {
    let bytes = formed(value, at, "AA999999A").or_else(|| formed(value, at, "AA 99 99 99 A"))?;
    let upper = bytes.to_ascii_uppercase();
    // In lower case it is more often something else.
    let issued = bytes[..2].iter().all(u8::is_ascii_uppercase)
        && !b"DFIQUV".contains(&upper[0])
        && !b"DFIQUVO".contains(&upper[1])
        && ![b"BG", b"GB", b"KN", b"NK", b"NT", b"TN", b"ZZ"].iter().any(|not| upper.starts_with(*not))
        && matches!(bytes.last(), Some(b'A'..=b'D'));
    issued.then_some(at..at + bytes.len())
}

// ---- secrets -------------------------------------------------------------------------------------------------------

/// What issuers begin their keys and tokens with, and how many characters follow at least and at most.
const PREFIXES: &[(&str, usize, usize)] = &[
    ("AKIA", 16, 16),
    ("ASIA", 16, 16),
    ("AIza", 35, 35),
    ("ghp_", 36, 251),
    ("gho_", 36, 251),
    ("ghu_", 36, 251),
    ("ghs_", 36, 251),
    ("ghr_", 36, 251),
    ("github_pat_", 60, 251),
    ("glpat-", 20, 64),
    ("sk_live_", 16, 251),
    ("rk_live_", 16, 251),
    ("sk-ant-", 32, 251),
    ("xoxb-", 20, 251),
    ("xoxp-", 20, 251),
    ("npm_", 36, 36),
    ("dop_v1_", 64, 64),
    ("hvs.", 24, 251),
    ("SG.", 60, 80),
];

fn secret(value: &[u8], at: usize) -> Option<Range<usize>> {
    let rest = &value[at..];
    let is_part = |byte: &&u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    let issued = PREFIXES.iter().find(|(prefix, ..)| rest.starts_with(prefix.as_bytes()));
    if let Some((prefix, least, most)) = issued {
        let follow = rest[prefix.len()..].iter().take(most + 1).take_while(is_part).count();
        let whole = (*least..=*most).contains(&follow);
        return whole.then_some(at..at + prefix.len() + follow);
    }
    json_token(value, at)
}

/// A signed token (RFC 7519): three parts in base64url, of which the first begins with `{"`.
fn json_token(value: &[u8], at: usize) -> Option<Range<usize>> {
    if !value[at..].starts_with(b"eyJ") {
        return None;
    }
    let is_part = |byte: &&u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    let mut end = at;
    for part in 0..3 {
        let length = value[end..].iter().take(SECRET_BYTES_MAX).take_while(is_part).count();
        if length < 16 {
            return None;
        }
        end += length;
        if part < 2 {
            (value.get(end) == Some(&b'.')).then_some(())?;
            end += 1;
        }
    }
    Some(at..end)
}

fn pem(value: &[u8], at: usize) -> Option<Range<usize>> {
    const BEGIN: &[u8] = b"-----BEGIN ";
    const KEY: &[u8] = b"PRIVATE KEY-----";
    let rest = &value[at..];
    if !rest.starts_with(BEGIN) {
        return None;
    }
    let head = &rest[BEGIN.len()..rest.len().min(BEGIN.len() + 32)];
    let key = head.windows(KEY.len()).position(|here| here == KEY)?;
    let body = BEGIN.len() + key + KEY.len();
    let window = &rest[body..rest.len().min(body + SECRET_BYTES_MAX)];
    // A key that is cut off is a key too.
    let length = window.windows(9).position(|here| here == b"-----END ").unwrap_or(window.len());
    Some(at + body..at + body + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overwritten(text: &str) -> (String, String) {
        let mut bytes = text.as_bytes().to_vec();
        let mut found = Found::default();
        overwrite(&mut bytes, Class::ALL.into_iter().collect(), &mut found);
        (String::from_utf8(bytes).expect("still text"), found.to_string())
    }

    #[test]
    fn what_is_found_is_overwritten_where_it_stands() {
        for (text, expected, found) in [
            ("write to <lee.k+x@mail.corp.test>.", "write to <xxx.x+x@xxxx.xxxx.xxxx>.", "email 1"),
            ("4111 1111 1111 1111", "9999 9999 9999 1111", "card 1"),
            (r#"{"card":5555555555554444}"#, r#"{"card":9999999999994444}"#, "card 1"),
            ("DE89 3704 0044 0532 0130 00", "DE99 9999 9999 9999 9999 99", "iban 1"),
            ("gb82west12345698765432", "gb99xxxx99999999999999", "iban 1"),
            ("call +49 (0) 30-1234567 now", "call +99 (9) 99-9999999 now", "phone 1"),
            ("+14155550123", "+99999999999", "phone 1"),
            ("ssn 219-09-9999", "ssn 999-99-9999", "national_id 1"),
            ("529.982.247-25", "999.999.999-99", "national_id 1"),
            ("12345678Z X1234567L", "99999999x x9999999x", "national_id 2"),
            ("RSSMRA85T10A562S", "xxxxxx99x99x999x", "national_id 1"),
            ("2 69 05 49 588 157 80", "9 99 99 99 999 999 99", "national_id 1"),
            ("AB123456C", "xx999999x", "national_id 1"),
            ("key=AKIAIOSFODNN7EXAMPLE;", "key=xxxxxxxxxxxx9xxxxxxx;", "secret 1"),
            (
                "-----BEGIN EC PRIVATE KEY-----\nMHcC\n-----END EC PRIVATE KEY-----",
                "-----BEGIN EC PRIVATE KEY-----\nxxxx\n-----END EC PRIVATE KEY-----",
                "secret 1",
            ),
            ("a@b.co\t4012888888881881\tx", "x@x.xx\t9999999999991881\tx", "email 1, card 1"),
        ] {
            let (text, counted) = overwritten(text);
            assert_eq!((text.as_str(), counted.as_str()), (expected, found));
        }
        let token =
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U";
        let (text, counted) = overwritten(token);
        assert!(
            text.bytes().all(|byte| matches!(byte, b'x' | b'9' | b'.')) && counted == "secret 1",
            "{text} {counted}"
        );
    }

    #[test]
    fn what_a_validator_denies_stays() {
        for text in [
            "4111111111111112",
            "1234567890123456",
            "41111111111111111111111",
            "0.4111111111111111",
            "0000000000000000",
            "2024-01-31 10:20:30.123456+00",
            "DE89370400440532013001",
            "XX89370400440532013000",
            "000-12-3456",
            "666-12-3456",
            "1.2.3@4",
            "user@localhost",
            "a..b@c.de",
            "f47ac10b-58cc-4372-a567-0e02b2c3d479",
            "+1234",
            "a+49301234567",
            "12:00+02",
            "12345678A",
            "123.456.789-00",
            "eyJhbGciOiJIUzI1NiJ9.short.x",
            "GB123456A",
        ] {
            assert_eq!(overwritten(text), (text.to_owned(), String::new()));
        }
    }

    #[test]
    fn the_time_is_linear_in_the_length() {
        // Each byte is looked at a bounded number of times: what would take hours at a quadratic cost ends at once.
        for piece in ["@", "a@", "1 ", "+1", "eyJ", "DE11 ", "-----BEGIN ", "a.b"] {
            let text = piece.repeat((256 << 10) / piece.len());
            let (after, _) = overwritten(&text);
            assert_eq!(after.len(), text.len());
        }
    }
}
