//! Where values stand in a column: what edges match children with parents by.

use hashbrown::HashMap;

/// The first row of each value of a column.
///
/// Hashing is seeded for each process, as senders choose what is hashed.
pub struct Index(HashMap<u64, i32>);

impl Index {
    /// Of a column of less than 2^31 values.
    pub fn of(keys: &[u64]) -> Self {
        let mut rows = HashMap::with_capacity(keys.len());
        for (row, &key) in (0..).zip(keys) {
            rows.entry(key).or_insert(row);
        }
        Self(rows)
    }

    /// The row of each of the `asked` values; -1 where none has it.
    pub fn find(&self, asked: &[u64]) -> Vec<i32> {
        asked.iter().map(|key| self.0.get(key).copied().unwrap_or(-1)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_row_counts_and_none_is_minus_one() {
        let find = |keys: &[u64], asked: &[u64]| Index::of(keys).find(asked);
        assert_eq!(find(&[7, 9, 7, u64::MAX], &[7, u64::MAX, 8, 9]), [0, 3, -1, 1]);
        assert_eq!(find(&[], &[1]), [-1]);
        assert!(find(&[1], &[]).is_empty());
    }
}
