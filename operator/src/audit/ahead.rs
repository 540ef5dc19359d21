//! Rows that lie in the order in which they are asked for, read some at a time.
//!
//! Promise: what is handed out is the row of its key in the snapshot, wherever it lies. A key is random,
//! and leads through an index to a page of its own; the rows of one hour lie beside each other. So where
//! one was asked for, its neighbours are read too, as long as they are what is asked for next.
//!
//! Failure policy: an order that helps nobody costs two rows for each that is asked for.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::Hash;
use std::rc::Rc;

use crate::store::{Around, StoreError};

/// Rows read at a time, at most.
const MOST: u32 = 512;
/// Rows in memory, and one reading more: then all of them are forgotten, asked for or not.
const KEPT: usize = 2_048;

/// Rows by their keys.
#[derive(Debug)]
pub(super) struct Ahead<K, T> {
    rows: RefCell<HashMap<K, Rc<T>>>,
    /// How often a row was there since some were read.
    found: Cell<u32>,
}

impl<K, T> Default for Ahead<K, T> {
    fn default() -> Self {
        Self { rows: RefCell::default(), found: Cell::new(0) }
    }
}

impl<K: Eq + Hash, T> Ahead<K, T> {
    /// The row of `key`, of which there is one at most; `read` reads it with its neighbours, as many as it
    /// is told.
    pub(super) fn get(
        &self,
        key: &K,
        read: impl FnOnce(Around) -> Result<Vec<(K, T)>, StoreError>,
    ) -> Result<Option<Rc<T>>, StoreError> {
        if let Some(row) = self.rows.borrow().get(key) {
            self.found.set(self.found.get().saturating_add(1));
            return Ok(Some(row.clone()));
        }
        // twice as many as were of use
        let count = self.found.take().saturating_add(1).saturating_mul(2).min(MOST);
        // what happened at one time may be asked for in a slightly different order
        let before = count / 4;
        let near = read(Around { before, after: count.saturating_sub(before) })?;
        let mut rows = self.rows.borrow_mut();
        if rows.len() > KEPT {
            rows.clear();
        }
        rows.extend(near.into_iter().map(|(key, row)| (key, Rc::new(row))));
        Ok(rows.get(key).cloned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows 0 to `count`, each under ten times its number.
    struct Table {
        count: i64,
        reads: Cell<u32>,
        read: RefCell<Vec<i64>>,
    }

    impl Table {
        fn new(count: i64) -> Self {
            Self { count, reads: Cell::new(0), read: RefCell::default() }
        }

        fn ask(&self, ahead: &Ahead<i64, i64>, key: i64) -> Option<i64> {
            let found = ahead.get(&key, |Around { before, after }| {
                self.reads.set(self.reads.get() + 1);
                let at = key / 10;
                if key % 10 != 0 || at >= self.count {
                    return Ok(vec![]);
                }
                let first = (at - i64::from(before)).max(0);
                let last = (at + i64::from(after)).min(self.count - 1);
                self.read.borrow_mut().extend(first..=last);
                Ok((first..=last).map(|row| (row * 10, row)).collect())
            });
            found.unwrap().as_deref().copied()
        }
    }

    /// Loss prevented: an audit that looks at another row than the one that is named, or at none.
    #[test]
    fn each_key_finds_its_row_in_whatever_order_and_however_often() {
        let (table, ahead) = (Table::new(20_000), Ahead::default());
        let mut seed = 7_u64;
        let mut random = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            i64::try_from(seed >> 33).unwrap() % table.count
        };
        let forward: Vec<i64> = (0..table.count).collect();
        let orders = [forward.clone(), forward.into_iter().rev().collect(), {
            (0..table.count).map(|_| random()).collect()
        }];
        for row in orders.iter().flatten() {
            assert_eq!(table.ask(&ahead, row * 10), Some(*row));
            assert!(ahead.rows.borrow().len() <= KEPT + MOST as usize + 1);
        }
        assert_eq!(table.ask(&ahead, 70), table.ask(&ahead, 70), "a second time");
        for missing in [5, 10 * table.count] {
            assert_eq!(table.ask(&ahead, missing), None);
        }
    }

    /// Loss prevented: an audit of a million that takes hours, since each row is looked for by itself, or
    /// hundreds are read for each one.
    #[test]
    fn neighbours_are_read_at_once_and_strangers_are_not() {
        let (table, ahead) = (Table::new(20_000), Ahead::default());
        // what is settled at one time comes in a slightly different order
        for row in (0..table.count).map(|row| row ^ 5) {
            assert_eq!(table.ask(&ahead, row * 10), Some(row));
        }
        assert!(table.reads.get() < 150, "{} reads", table.reads.get());
        assert!(table.read.borrow().len() < 30_000, "{} rows", table.read.borrow().len());

        let (table, ahead) = (Table::new(1_000_000), Ahead::default());
        for row in (0..2_000).map(|n| n * 7_919 % table.count) {
            assert_eq!(table.ask(&ahead, row * 10), Some(row));
        }
        assert!(table.read.borrow().len() < 8_000, "{} rows", table.read.borrow().len());
    }
}
