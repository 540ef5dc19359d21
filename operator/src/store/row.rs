//! Statements and rows.
//!
//! Promise: what may write is a [`Tx`], which only the writer thread hands out; a [`Read`] cannot.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;

use rusqlite::types::Value;
use rusqlite::{Connection, Statement};

use super::column::{FromColumn, ToColumn};
use super::error::{StoreError, is_fatal};

/// What the columns of each statement are called that a connection has run: asked for each field of each
/// row, SQLite's own answer is a tenth of the reading.
#[derive(Debug, Default)]
pub(super) struct Columns(RefCell<HashMap<String, Arc<[String]>>>);

impl Columns {
    fn of(&self, sql: &str, statement: &Statement<'_>) -> Arc<[String]> {
        if let Some(known) = self.0.borrow().get(sql) {
            return known.clone();
        }
        let names = statement.column_names().map(str::to_owned).collect();
        self.0.borrow_mut().entry(sql.to_owned()).or_insert(names).clone()
    }
}

/// A view of the database: one snapshot, nothing can be written through it.
pub struct Read<'c> {
    conn: &'c Connection,
    columns: &'c Columns,
    /// Why the writer must stop, if a statement met a fault of the disk.
    fatal: RefCell<Option<String>>,
}

/// One job's part of a write transaction; undone as a whole if the job fails.
pub struct Tx<'c>(Read<'c>);

impl<'c> Deref for Tx<'c> {
    type Target = Read<'c>;
    fn deref(&self) -> &Read<'c> {
        &self.0
    }
}

impl<'c> Read<'c> {
    /// `columns` are those of this connection.
    pub(super) const fn new(conn: &'c Connection, columns: &'c Columns) -> Self {
        Self { conn, columns, fatal: RefCell::new(None) }
    }

    /// Every row of a query.
    pub(super) fn all<T>(
        &self,
        sql: &str,
        values: &[&dyn ToColumn],
        map: impl Fn(&Row<'_>) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let values = to_values(values)?;
        let mut found = Vec::new();
        #[cfg(test)]
        super::tests::plans::asked(sql, values.len());
        self.watch(|conn| {
            let mut statement = conn.prepare_cached(sql)?;
            let columns = self.columns.of(sql, &statement);
            let mut rows = statement.query(rusqlite::params_from_iter(values))?;
            while let Some(row) = rows.next()? {
                found.push(map(&Row::new(row, &columns)));
            }
            Ok(())
        })?;
        found.into_iter().collect()
    }

    /// The first row of a query, if there is one.
    pub(super) fn one<T>(
        &self,
        sql: &str,
        values: &[&dyn ToColumn],
        map: impl Fn(&Row<'_>) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        let values = to_values(values)?;
        #[cfg(test)]
        super::tests::plans::asked(sql, values.len());
        let found = self.watch(|conn| {
            let mut statement = conn.prepare_cached(sql)?;
            let columns = self.columns.of(sql, &statement);
            let mut rows = statement.query(rusqlite::params_from_iter(values))?;
            Ok(rows.next()?.map(|row| map(&Row::new(row, &columns))))
        })?;
        found.transpose()
    }

    fn watch<T>(
        &self,
        run: impl FnOnce(&Connection) -> Result<T, rusqlite::Error>,
    ) -> Result<T, StoreError> {
        run(self.conn).map_err(|error| {
            if is_fatal(&error) {
                self.fatal.borrow_mut().get_or_insert(error.to_string());
            }
            error.into()
        })
    }
}

impl<'c> Tx<'c> {
    pub(super) const fn new(conn: &'c Connection, columns: &'c Columns) -> Self {
        Self(Read::new(conn, columns))
    }

    pub(super) fn into_fatal(self) -> Option<String> {
        self.0.fatal.into_inner()
    }

    /// Runs one statement; the number of rows that it changed.
    pub(super) fn run(&self, sql: &str, values: &[&dyn ToColumn]) -> Result<u64, StoreError> {
        let values = to_values(values)?;
        #[cfg(test)]
        super::tests::plans::asked(sql, values.len());
        let changed = self
            .watch(|conn| conn.prepare_cached(sql)?.execute(rusqlite::params_from_iter(values)))?;
        Ok(u64::try_from(changed).unwrap_or(u64::MAX))
    }

    /// Runs one statement that must change exactly one row of `table`.
    pub(super) fn run_one(
        &self,
        table: &'static str,
        sql: &str,
        values: &[&dyn ToColumn],
    ) -> Result<(), StoreError> {
        match self.run(sql, values)? {
            1 => Ok(()),
            changed => Err(StoreError::NotOneRow { table, changed }),
        }
    }

    /// Inserts one row; its row id.
    pub(super) fn insert(
        &self,
        table: &'static str,
        columns: &[(&'static str, &dyn ToColumn)],
    ) -> Result<i64, StoreError> {
        self.insert_by(table, &insertion(table, columns), columns)
    }

    /// The same by its statement, see [`insertion`].
    pub(super) fn insert_by(
        &self,
        table: &'static str,
        sql: &str,
        columns: &[(&'static str, &dyn ToColumn)],
    ) -> Result<i64, StoreError> {
        let values: Vec<_> = columns.iter().map(|(_, value)| *value).collect();
        self.run_one(table, sql, &values)?;
        Ok(self.conn.last_insert_rowid())
    }
}

/// The statement that inserts these columns.
pub(super) fn insertion(table: &str, columns: &[(&'static str, &dyn ToColumn)]) -> String {
    let names: Vec<_> = columns.iter().map(|(name, _)| *name).collect();
    let places: Vec<_> = (1..=columns.len()).map(|n| format!("?{n}")).collect();
    format!("INSERT INTO {table} ({}) VALUES ({})", names.join(","), places.join(","))
}

fn to_values(values: &[&dyn ToColumn]) -> Result<Vec<Value>, StoreError> {
    values.iter().map(|value| value.to_value()).collect()
}

/// One row of an answer.
pub(super) struct Row<'r> {
    row: &'r rusqlite::Row<'r>,
    columns: &'r [String],
    /// The column after the one that was read last: fields mostly stand in the order of their table.
    next: Cell<usize>,
}

impl<'r> Row<'r> {
    const fn new(row: &'r rusqlite::Row<'r>, columns: &'r [String]) -> Self {
        Self { row, columns, next: Cell::new(0) }
    }

    /// Where the column called `name` is. Looked for from the last one on, or a row of thirty columns
    /// costs hundreds of comparisons.
    fn find(&self, name: &str) -> Result<usize, StoreError> {
        let (next, count) = (self.next.get(), self.columns.len());
        let mut places = (next..count).chain(0..next.min(count));
        let is_it = |at: &usize| self.columns.get(*at).is_some_and(|column| column == name);
        let at = places.find(is_it);
        let at = at.ok_or_else(|| rusqlite::Error::InvalidColumnName(name.to_owned()))?;
        self.next.set(at.saturating_add(1));
        Ok(at)
    }

    /// The value of the column called `name`.
    pub(super) fn get<T: FromColumn>(&self, name: &str) -> Result<T, StoreError> {
        let value = self.row.get_ref(self.find(name)?)?;
        T::from_value(value)
            .map_err(|expected| StoreError::Column { column: name.to_owned(), expected })
    }
}

/// What was read, where it reads: for rows that lie beside the one that is asked for.
pub(super) fn legible<T>(read: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match read {
        Ok(row) => Ok(Some(row)),
        Err(StoreError::Column { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What became of something that may be recorded once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded<I> {
    /// It was written.
    New(I),
    /// It was there already, with the same content; nothing was written.
    Known(I),
}

impl<I: Copy> Recorded<I> {
    /// The id, new or known.
    pub const fn id(&self) -> I {
        match self {
            Self::New(id) | Self::Known(id) => *id,
        }
    }
}

/// A row with those that were written just before and after it, so many of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Around {
    /// Before it.
    pub before: u32,
    /// After it.
    pub after: u32,
}

/// A row with the id that the database gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept<I, T> {
    /// The id.
    pub id: I,
    /// The columns.
    pub row: T,
}

impl<I, T> Deref for Kept<I, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.row
    }
}

/// The columns of a table as a struct: what is inserted and what is read have the same names. With
/// `id: Type` the table numbers its rows itself, and they are read as [`Kept`].
macro_rules! record {
    (
        $(#[$doc:meta])*
        pub struct $name:ident in $table:literal $(, id: $id:ident)? {
            $($(#[$fdoc:meta])* pub $field:ident: $type:ty),* $(,)?
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name { $($(#[$fdoc])* pub $field: $type),* }

        impl $name {
            fn columns(&self) -> Vec<(&'static str, &dyn $crate::store::column::ToColumn)> {
                vec![$((stringify!($field), &self.$field)),*]
            }

            fn insert_row(
                &self,
                tx: &$crate::store::row::Tx<'_>,
            ) -> Result<i64, $crate::store::error::StoreError> {
                // the text is the same for each row
                static SQL: std::sync::OnceLock<String> = std::sync::OnceLock::new();
                let columns = self.columns();
                let sql = SQL.get_or_init(|| $crate::store::row::insertion($table, &columns));
                tx.insert_by($table, sql, &columns)
            }

            fn from_row(
                row: &$crate::store::row::Row<'_>,
            ) -> Result<Self, $crate::store::error::StoreError> {
                Ok(Self { $($field: row.get(stringify!($field))?),* })
            }
        }

        $crate::store::row::record_insert!($name, $table $(, $id)?);
    };
}

/// The insert (and the read with its id) of a [`record!`].
macro_rules! record_insert {
    ($name:ident, $table:literal) => {
        impl $name {
            fn insert_into(
                &self,
                tx: &$crate::store::row::Tx<'_>,
            ) -> Result<(), $crate::store::error::StoreError> {
                self.insert_row(tx).map(|_| ())
            }
        }
    };
    ($name:ident, $table:literal, $id:ident) => {
        impl $name {
            fn insert_into(
                &self,
                tx: &$crate::store::row::Tx<'_>,
            ) -> Result<$id, $crate::store::error::StoreError> {
                self.insert_row(tx).map($id)
            }

            fn kept(
                row: &$crate::store::row::Row<'_>,
            ) -> Result<$crate::store::row::Kept<$id, Self>, $crate::store::error::StoreError> {
                Ok($crate::store::row::Kept { id: row.get("id")?, row: Self::from_row(row)? })
            }
        }
    };
}

pub(super) use {record, record_insert};
