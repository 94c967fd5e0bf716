//! How often content detection takes something for what it is not, over values as databases hold them, and how often it misses.
//!
//! The table of docs/policy.md is what `cargo test --test detect -- --nocapture` prints; each rate has a bound here.

use gatebook_wire::detect::{Class, Classes, Found, overwrite};

/// How many values of each kind are made.
const VALUES: usize = 50_000;

/// The same numbers every time (xorshift64*, Vigna 2016).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[usize::try_from(self.below(of.len() as u64)).expect("an index")]
    }

    fn of(&mut self, letters: &[u8], count: usize) -> String {
        (0..count).map(|_| char::from(*self.one(letters))).collect()
    }

    fn digits(&mut self, count: usize) -> String {
        self.of(b"0123456789", count)
    }
}

const HEX: &[u8] = b"0123456789abcdef";
const UPPER: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ";
const ALNUM: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
const BASE64: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// Detects in one value; the classes that were found.
fn detect(value: &str) -> Found {
    let mut bytes = value.as_bytes().to_vec();
    let mut found = Found::default();
    overwrite(&mut bytes, Class::ALL.into_iter().collect::<Classes>(), &mut found);
    assert_eq!(bytes.len(), value.len());
    assert_eq!(found.any(), bytes != value.as_bytes(), "{value} is overwritten where something was found");
    found
}

/// One kind of value: its name, how it is made, and of how many in 10,000 something may be found.
type Kind = (&'static str, fn(&mut Chance) -> String, u64);

#[test]
fn little_is_taken_for_what_it_is_not() {
    let kinds: [Kind; 20] = [
        ("whole numbers to 2^31", |c| c.below(1 << 31).to_string(), 0),
        ("whole numbers to 2^63", |c| c.below(1 << 63).to_string(), 60),
        ("amounts", |c| format!("{}.{}", c.below(10_000_000), c.digits(2)), 0),
        ("16 random digits", |c| c.digits(16), 260),
        ("15 random digits", |c| c.digits(15), 60),
        ("epoch in milliseconds", |c| format!("17{}", c.digits(11)), 0),
        ("epoch in microseconds", |c| format!("17{}", c.digits(14)), 0),
        (
            "timestamps",
            |c| {
                let (month, day) = (1 + c.below(12), 1 + c.below(28));
                let (hour, minute) = (c.below(24), c.below(60));
                format!(
                    "20{}-{month:02}-{day:02} {hour:02}:{minute:02}:{}.{}+00",
                    c.digits(2),
                    c.digits(2),
                    c.digits(6)
                )
            },
            0,
        ),
        ("ISBN-13", |c| format!("978{}", c.digits(10)), 0),
        (
            "UUIDs",
            |c| {
                format!(
                    "{}-{}-4{}-a{}-{}",
                    c.of(HEX, 8),
                    c.of(HEX, 4),
                    c.of(HEX, 3),
                    c.of(HEX, 3),
                    c.of(HEX, 12)
                )
            },
            5,
        ),
        ("SHA-256 in hex", |c| c.of(HEX, 64), 0),
        ("32 characters of base64", |c| c.of(BASE64, 32), 0),
        (
            "IPv4 addresses",
            |c| format!("{}.{}.{}.{}", c.below(256), c.below(256), c.below(256), c.below(256)),
            0,
        ),
        ("versions", |c| format!("v{}.{}.{}-rc.{}", c.below(30), c.below(50), c.below(100), c.below(9)), 0),
        (
            "paths",
            |c| format!("/var/{}/{}@{}/{}", c.of(HEX, 6), c.of(UPPER, 5), c.below(20), c.of(HEX, 9)),
            0,
        ),
        ("local telephone numbers", |c| format!("0{} {}", c.digits(3), c.digits(7)), 0),
        ("order numbers AB-1234567", |c| format!("{}-{}", c.of(UPPER, 2), c.digits(7)), 0),
        ("22 letters and digits", |c| c.of(ALNUM, 22), 2),
        ("8 digits and a letter", |c| format!("{}{}", c.digits(8), c.of(UPPER, 1)), 460),
        (
            "JSON of all these",
            |c| {
                let (id, at) = (c.below(1 << 40), c.digits(10));
                format!(
                    r#"{{"id": {id}, "at": "17{at}", "key": "{}", "ip": "10.0.{}.1"}}"#,
                    c.of(HEX, 40),
                    c.below(256)
                )
            },
            0,
        ),
    ];
    for (name, make, in_10_000_max) in kinds {
        let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
        let mut all = Found::default();
        let mut hit = 0u64;
        for _ in 0..VALUES {
            let found = detect(&make(&mut chance));
            hit += u64::from(found.any());
            all.add(&found);
        }
        println!("| {name} | {:.3} % | {all} |", hit as f64 * 100.0 / VALUES as f64);
        assert!(hit * 10_000 <= in_10_000_max * VALUES as u64, "{name}: {hit} of {VALUES}, {all}");
    }
}

fn luhn_digit(digits: &str) -> u32 {
    let sum: u32 = digits
        .bytes()
        .rev()
        .enumerate()
        .map(|(place, byte)| {
            let digit = u32::from(byte - b'0') * if place % 2 == 0 { 2 } else { 1 };
            digit / 10 + digit % 10
        })
        .sum();
    (10 - sum % 10) % 10
}

fn iban(country: &str, account: &str) -> String {
    let spelt: String = format!("{account}{country}00")
        .bytes()
        .map(|byte| {
            if byte.is_ascii_digit() { char::from(byte).to_string() } else { (byte - b'A' + 10).to_string() }
        })
        .collect();
    let rest = spelt.bytes().fold(0u32, |rest, byte| (rest * 10 + u32::from(byte - b'0')) % 97);
    format!("{country}{:02}{account}", 98 - rest)
}

#[test]
fn whatever_is_valid_is_found() {
    let mut chance = Chance(0x853c_49e6_748f_ea9b);
    for _ in 0..1_000 {
        let prefix = chance.one(&["4", "51", "55", "2221", "2720", "6011", "3528"]);
        let card = format!("{prefix}{}", chance.digits(15 - prefix.len()));
        let card = format!("{card}{}", luhn_digit(&card));
        assert_eq!(detect(&card).of(Class::Card), 1, "{card}");
        let spaced = format!("{} {} {} {}", &card[..4], &card[4..8], &card[8..12], &card[12..]);
        assert_eq!(detect(&spaced).of(Class::Card), 1, "{spaced}");
        for (country, length) in [("DE", 18), ("NL", 14), ("GB", 18), ("NO", 11), ("MT", 27)] {
            let iban = iban(country, &chance.of(ALNUM, length));
            assert_eq!(detect(&format!("to {iban}.")).of(Class::Iban), 1, "{iban}");
        }
        let mail = format!("{}.{}@{}.example", chance.of(HEX, 5), chance.of(UPPER, 3), chance.of(HEX, 8));
        assert_eq!(detect(&format!("<{mail}>")).of(Class::Email), 1, "{mail}");
        let phone = format!("+49 {}-{}", chance.digits(3), chance.digits(7));
        assert_eq!(detect(&phone).of(Class::Phone), 1, "{phone}");
        let key = format!("AKIA{}", chance.of(ALNUM, 16));
        assert_eq!(detect(&format!("key={key}")).of(Class::Secret), 1, "{key}");
    }
}
