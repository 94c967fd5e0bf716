//! The fuzz targets over random and mutated bytes, without a fuzzer: so that they hold every day.

#[path = "../fuzz/targets.rs"]
mod targets;

/// Bytes that look random and are the same each time (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).expect("it is below")
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next().to_be_bytes()[0]).collect()
    }
}

/// Runs a target; what it panics on is told as bytes, for a case of its own.
fn hold(data: &[u8], target: fn(&[u8])) {
    if let Err(panic) = std::panic::catch_unwind(|| target(data)) {
        eprintln!("input: {data:?}");
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn streams_are_cut_alike_however_they_are_torn() {
    let mut random = Random(1);
    for _ in 0..4_000 {
        let mut stream = vec![random.next().to_be_bytes()[0]];
        for _ in 0..random.below(8) {
            let length = random.below(40);
            stream.push(b"QDdTCZEPd"[random.below(9)]);
            // Mostly a length that is right.
            let claimed = if random.below(12) == 0 { random.below(1 << 17) } else { length + 4 };
            stream.extend(u32::try_from(claimed).expect("it is short").to_be_bytes());
            stream.extend(random.bytes(length));
        }
        hold(&stream, targets::frames);
    }
}

#[test]
fn a_conversation_is_what_it_would_be_without_a_gateway() {
    let mut random = Random(2);
    for _ in 0..6_000 {
        let length = 20 + random.below(300);
        let data = random.bytes(length);
        hold(&data, targets::conversation);
    }
}

#[test]
fn the_analysis_of_mutated_statements_ends_and_says_the_same_twice() {
    let seeds: Vec<&str> =
        include_str!("sql/corpus.tsv").lines().filter_map(|line| line.split('\t').next_back()).collect();
    let words = [
        "'", "\"", "$$", "--", "/*", "*/", ";", "(", ")", "E'\\''", "U&\"", "\\", "\0", "é", " SELECT ",
        " INTO x ",
    ];
    let mut random = Random(3);
    for _ in 0..3_000 {
        let mut text = seeds[random.below(seeds.len())].as_bytes().to_vec();
        for _ in 0..random.below(4) {
            let at = random.below(text.len() + 1);
            match random.below(3) {
                0 => text.splice(at..at, words[random.below(words.len())].bytes()).for_each(drop),
                1 => text.truncate(at),
                _ => {
                    let other = seeds[random.below(seeds.len())].as_bytes();
                    text.splice(at..at, other[..random.below(other.len() + 1)].iter().copied())
                        .for_each(drop);
                }
            }
        }
        hold(&text, targets::analysis);
    }
}
