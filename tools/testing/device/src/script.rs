// SPDX-License-Identifier: GPL-2.0

//! What a device does wrong, and when.
//!
//! A script is text. Each line bends the device at one [`Point`]:
//!
//! ```text
//! POINT [after N] [times N] VALUE
//! ```
//!
//! The first N times that the device comes by the point it behaves; then, once or as many times as the line says (`times all` for
//! ever), it takes VALUE for what would be right: a number, or `random`. A line `seed N` makes the random values those of the
//! last time. Empty lines and what follows a `#` mean nothing.
//!
//! ```
//! use tenon_device::script::{Point, Script};
//!
//! let mut script: Script = "rx.used-len after 1 times 2 70000 # far more than a buffer holds".parse().unwrap();
//! let lens = [(); 4].map(|()| script.bend(Point::RxUsedLen, 60));
//! assert_eq!(lens, [60, 70000, 70000, 60]);
//! ```

use anyhow::{
    bail,
    Context,
    Error,
    Result, //
};
use std::str::FromStr;

/// Where a device can be bent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// A byte of the header of a received packet, the one with this number.
    RxHeader(usize),
    /// How many bytes of a receive buffer are said to be written.
    RxUsedLen,
    /// Which receive buffer is said to be used.
    RxUsedId,
    /// How many packets are received for one that there is.
    RxCopies,
    /// Whether a notification of a transmit queue is heard: not if 0.
    TxKick,
    /// Which transmit buffer is said to be used.
    TxUsedId,
    /// Whether a transmit buffer is given back: not if 0.
    TxUsed,
    /// Whether a command is answered: not if 0.
    ControlUsed,
    /// What the answer to a command says.
    ControlStatus,
    /// How long statistics of one class are said to be.
    StatsSize,
    /// Of which queue they are said to be.
    StatsQueue,
    /// Whether a list of pages for the balloon is given back: not if 0.
    InflateUsed,
    /// Which one is said to be.
    InflateUsedId,
    /// Whether a list of pages that leave the balloon is given back: not if 0.
    DeflateUsed,
    /// Which one is said to be.
    DeflateUsedId,
    /// Whether a report of free pages is given back: not if 0.
    ReportUsed,
    /// Which one is said to be.
    ReportUsedId,
    /// Whether a hint at free pages is given back: not if 0.
    HintUsed,
    /// Which one is said to be.
    HintUsedId,
    /// Which buffer of statistics is said to be used.
    StatisticsUsedId,
    /// How many pages the balloon wants.
    Target,
    /// Which hints it wants.
    HintId,
}

impl FromStr for Point {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Ok(match name {
            "rx.used-len" => Self::RxUsedLen,
            "rx.used-id" => Self::RxUsedId,
            "rx.copies" => Self::RxCopies,
            "tx.kick" => Self::TxKick,
            "tx.used-id" => Self::TxUsedId,
            "tx.used" => Self::TxUsed,
            "control.used" => Self::ControlUsed,
            "control.status" => Self::ControlStatus,
            "stats.size" => Self::StatsSize,
            "stats.queue" => Self::StatsQueue,
            "inflate.used" => Self::InflateUsed,
            "inflate.used-id" => Self::InflateUsedId,
            "deflate.used" => Self::DeflateUsed,
            "deflate.used-id" => Self::DeflateUsedId,
            "report.used" => Self::ReportUsed,
            "report.used-id" => Self::ReportUsedId,
            "hint.used" => Self::HintUsed,
            "hint.used-id" => Self::HintUsedId,
            "statistics.used-id" => Self::StatisticsUsedId,
            "config.target" => Self::Target,
            "config.hint" => Self::HintId,
            _ => match name.strip_prefix("rx.header.") {
                Some(byte) => Self::RxHeader(byte.parse().context("the number of a byte")?),
                None => bail!("there is no point {name:?}"),
            },
        })
    }
}

#[derive(Clone, Copy, Debug)]
enum Value {
    Is(u64),
    Random,
}

#[derive(Clone, Debug)]
struct Line {
    point: Point,
    after: u64,
    times: u64,
    value: Value,
}

/// A script, and how far it has come.
#[derive(Clone, Debug)]
pub struct Script {
    lines: Vec<Line>,
    random: fastrand::Rng,
    /// How often the device was bent.
    pub bent: u64,
}

impl Default for Script {
    fn default() -> Self {
        Script {
            lines: Vec::new(),
            random: fastrand::Rng::with_seed(0),
            bent: 0,
        }
    }
}

impl Script {
    /// Returns what the device is to take for `right`.
    pub fn bend(&mut self, point: Point, right: u64) -> u64 {
        for line in self.lines.iter_mut().filter(|line| line.point == point) {
            if line.after > 0 {
                line.after -= 1;
            } else if line.times > 0 {
                line.times -= 1;
                self.bent += 1;
                return match line.value {
                    Value::Is(value) => value,
                    Value::Random => self.random.u64(..),
                };
            }
        }
        right
    }
}

impl FromStr for Script {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut script = Script::default();

        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default();
            let words: Vec<_> = line.split_whitespace().collect();
            match words.as_slice() {
                [] => {}
                ["seed", seed] => script.random.seed(parse(seed)?),
                words => script
                    .lines
                    .push(parse_line(words).with_context(|| format!("line {}", number + 1))?),
            }
        }
        Ok(script)
    }
}

fn parse(number: &str) -> Result<u64> {
    let parsed = match number.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => number.parse(),
    };
    parsed.with_context(|| format!("{number:?} is no number"))
}

fn parse_line(words: &[&str]) -> Result<Line> {
    let (mut after, mut times) = (0, 1);
    let Some((point, mut rest)) = words.split_first() else {
        bail!("nothing is said");
    };

    loop {
        match rest {
            ["after", number, tail @ ..] => {
                after = parse(number)?;
                rest = tail;
            }
            ["times", "all", tail @ ..] => {
                times = u64::MAX;
                rest = tail;
            }
            ["times", number, tail @ ..] => {
                times = parse(number)?;
                rest = tail;
            }
            [value] => {
                return Ok(Line {
                    point: point.parse()?,
                    after,
                    times,
                    value: match *value {
                        "random" => Value::Random,
                        number => Value::Is(parse(number)?),
                    },
                })
            }
            _ => bail!("POINT [after N] [times N] VALUE is expected"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_followed_in_their_order() {
        let mut script: Script =
            "tx.used after 1 0\ntx.used times 2 5 # then these\n\nrx.used-id 0x10"
                .parse()
                .unwrap();
        let values = [(); 5].map(|()| script.bend(Point::TxUsed, 1));

        assert_eq!(values, [5, 0, 5, 1, 1]);
        assert_eq!(script.bend(Point::RxUsedId, 3), 16);
        assert_eq!(script.bent, 4);
    }

    #[test]
    fn a_seed_makes_it_the_same_again() {
        let draw = |seed: u64| {
            let mut script: Script = format!("seed {seed}\nrx.header.10 times all random")
                .parse()
                .unwrap();
            [(); 8].map(|()| script.bend(Point::RxHeader(10), 0))
        };

        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for wrong in [
            "rx.used-len",
            "rx.used-len x",
            "no.such.point 1",
            "rx.header.x 1",
            "rx.used-len after 1",
            "rx.used-len 1 2",
            "seed x",
        ] {
            assert!(wrong.parse::<Script>().is_err(), "{wrong}");
        }
    }
}
