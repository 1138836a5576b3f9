//! Where values stand in a column: what edges match children with parents by.

use hashbrown::HashMap;

/// The first row of `keys` that holds each of the `asked` values; -1 where none does.
///
/// Hashing is seeded for each process, as senders choose what is hashed.
pub fn rows_of(keys: &[u64], asked: &[u64]) -> Vec<i32> {
    let mut rows: HashMap<u64, i32> = HashMap::with_capacity(keys.len());
    for (row, &key) in (0..).zip(keys) {
        rows.entry(key).or_insert(row);
    }
    asked.iter().map(|key| rows.get(key).copied().unwrap_or(-1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_row_counts_and_none_is_minus_one() {
        assert_eq!(rows_of(&[7, 9, 7, u64::MAX], &[7, u64::MAX, 8, 9]), [0, 3, -1, 1]);
        assert_eq!(rows_of(&[], &[1]), [-1]);
        assert!(rows_of(&[1], &[]).is_empty());
    }
}
