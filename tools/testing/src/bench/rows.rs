// SPDX-License-Identifier: GPL-2.0

//! What is compared, and whether the difference is one.

use crate::tests::Driver;

/// A driver of the kernel's and ours for the same device.
#[derive(Clone, Copy)]
pub struct Pair {
    pub theirs: Driver,
    pub ours: Driver,
}

impl Pair {
    /// Both, in the order in which they take turns.
    pub fn both(self) -> [(Side, Driver); 2] {
        [(Side::Theirs, self.theirs), (Side::Ours, self.ours)]
    }
}

/// Whose driver it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    Theirs,
    Ours,
}

/// What several runs have measured.
#[derive(Clone, Debug, Default)]
pub struct Values(pub Vec<f64>);

impl Values {
    /// The one in the middle, or the mean of the two there.
    pub fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;

        match (sorted.get(middle), sorted.len() % 2) {
            (None, _) => f64::NAN,
            (Some(value), 1) => *value,
            (Some(value), _) => (sorted[middle - 1] + value) / 2.0,
        }
    }

    /// The difference between the largest and the smallest.
    pub fn spread(&self) -> f64 {
        let low = self.0.iter().copied().fold(f64::INFINITY, f64::min);
        let high = self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max);

        if self.0.is_empty() {
            f64::NAN
        } else {
            high - low
        }
    }

    /// The spread as a part of the median.
    fn relative(&self) -> f64 {
        if self.spread() == 0.0 {
            0.0
        } else {
            self.spread() / self.median().abs()
        }
    }
}

/// Whether less or more is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    Less,
    More,
}

/// What a ratio says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Ours is better.
    Better,
    /// Ours is worse.
    Worse,
    /// The difference is not larger than what both vary by.
    Within,
    /// One run does not tell what varies.
    Once,
    /// There is nothing to compare.
    None,
}

impl Verdict {
    /// As it is printed.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Better => "better",
            Verdict::Worse => "worse",
            Verdict::Within => "within the spread",
            Verdict::Once => "of one run",
            Verdict::None => "-",
        }
    }
}

/// One figure of both drivers.
#[derive(Clone, Debug)]
pub struct Row {
    /// What the drivers did.
    pub subject: String,
    /// What is counted, of what.
    pub unit: String,
    pub better: Better,
    pub theirs: Values,
    pub ours: Values,
    /// What a driver does not do, if it does not.
    pub note: Option<String>,
}

impl Row {
    /// A row without values, of which less is better.
    pub fn new(subject: impl Into<String>, unit: impl Into<String>) -> Self {
        Row {
            subject: subject.into(),
            unit: unit.into(),
            better: Better::Less,
            theirs: Values::default(),
            ours: Values::default(),
            note: None,
        }
    }

    /// One of which more is better.
    pub fn more_is_better(mut self) -> Self {
        self.better = Better::More;
        self
    }

    /// Adds a value.
    pub fn push(&mut self, side: Side, value: f64) {
        match side {
            Side::Theirs => self.theirs.0.push(value),
            Side::Ours => self.ours.0.push(value),
        }
    }

    /// Ours by theirs.
    pub fn ratio(&self) -> Option<f64> {
        let (theirs, ours) = (self.theirs.median(), self.ours.median());

        if theirs == 0.0 && ours == 0.0 {
            return Some(1.0);
        }
        // What is left of a load may be nothing or less than nothing, and then a ratio says nothing.
        (theirs > 0.0 && ours > 0.0).then(|| ours / theirs)
    }

    /// What the ratio says: something if it is farther from one than both values vary.
    pub fn verdict(&self) -> Verdict {
        let Some(ratio) = self.ratio() else {
            return Verdict::None;
        };
        let less = match self.better {
            Better::Less => ratio < 1.0,
            Better::More => ratio > 1.0,
        };

        if self.theirs.0.len() < 2 || self.ours.0.len() < 2 {
            Verdict::Once
        } else if (ratio - 1.0).abs() <= self.theirs.relative() + self.ours.relative() {
            Verdict::Within
        } else if less {
            Verdict::Better
        } else {
            Verdict::Worse
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(theirs: &[f64], ours: &[f64]) -> Row {
        Row {
            theirs: Values(theirs.to_vec()),
            ours: Values(ours.to_vec()),
            ..Row::new("", "")
        }
    }

    #[test]
    fn the_median_is_in_the_middle_and_the_spread_is_all_of_it() {
        assert_eq!(Values(vec![9.0, 1.0, 2.0]).median(), 2.0);
        assert_eq!(Values(vec![4.0, 1.0, 2.0, 3.0]).median(), 2.5);
        assert_eq!(Values(vec![9.0, 1.0, 2.0]).spread(), 8.0);
        assert!(Values::default().median().is_nan());
    }

    #[test]
    fn a_ratio_counts_only_beyond_the_spread_of_both() {
        assert_eq!(
            row(&[100.0, 101.0], &[90.0, 91.0]).verdict(),
            Verdict::Better
        );
        assert_eq!(
            row(&[100.0, 101.0], &[110.0, 111.0]).verdict(),
            Verdict::Worse
        );
        assert_eq!(
            row(&[100.0, 106.0], &[90.0, 96.0]).verdict(),
            Verdict::Within
        );
        assert_eq!(row(&[100.0; 2], &[100.0; 2]).verdict(), Verdict::Within);
        assert_eq!(row(&[0.0; 2], &[0.0; 2]).verdict(), Verdict::Within);
        assert_eq!(row(&[100.0], &[10.0]).verdict(), Verdict::Once);
        assert_eq!(
            row(&[100.0; 2], &[110.0; 2]).more_is_better().verdict(),
            Verdict::Better
        );
    }

    #[test]
    fn what_was_not_measured_or_is_not_positive_has_no_ratio() {
        assert_eq!(row(&[1.0], &[]).verdict(), Verdict::None);
        assert_eq!(row(&[-1.0], &[1.0]).ratio(), None);
        assert_eq!(row(&[0.0], &[1.0]).ratio(), None);
    }
}
