//! The embedded relay's documents, in a file of their own.
//!
//! Promise: of each (author, kind, `d`) the event with the highest `created_at` stays, of equals
//! the one with the lower id (NIP-01); what [`RelayDocs::put`] answered is on the disk; an expired
//! document is never read (NIP-40) and is removed by [`RelayDocs::sweep`].
//!
//! Failure policy: as [`Store`]: a fault of the disk stops all further writing.

use std::future::Future;
use std::path::Path;

use bitspire_shared::admit::Head;
use bitspire_shared::ids::to_hex;
use bitspire_shared::time::Unix;
use nostr::filter::{Alphabet, SingleLetterTag};
use nostr::{Event, EventId, Filter, JsonUtil, PublicKey};

use super::column::ToColumn;
use super::error::{OpenError, StoreError};
use super::migrate::Migration;
use super::{Json, Read, Store, Tx};

const MIGRATIONS: &[Migration] = &[
    Migration {
        number: 1,
        name: "relay_0001_documents",
        sql: include_str!("migrations/relay_0001_documents.sql"),
    },
    Migration {
        number: 2,
        name: "relay_0002_rows",
        sql: include_str!("migrations/relay_0002_rows.sql"),
    },
];

/// What became of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It is the latest now.
    Stored,
    /// This very event is stored already.
    Known,
    /// A newer one, or an equally old one with a lower id, is stored.
    Older,
    /// The author holds as many documents as it may.
    Quota,
}

/// Where a page of documents ends: newest first, equals by the lower id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    created_at: u64,
    id: String,
}

/// Documents that match as far as the database looks, and where the next page begins.
#[derive(Debug)]
pub struct Page {
    /// The events as JSON, newest first.
    pub events: Vec<String>,
    /// `None` after the last page.
    pub next: Option<Position>,
}

/// The documents. Clones share the file; it is closed with the last one.
#[derive(Clone, Debug)]
pub struct RelayDocs(Store);

impl RelayDocs {
    /// Opens the file at `path`, creates it where there is none.
    ///
    /// # Errors
    /// [`OpenError`]; the file may then be removed, and its publishers send again.
    pub fn open(path: &Path, now: Unix) -> Result<Self, OpenError> {
        Store::open_with(path, now, MIGRATIONS, 1).map(Self)
    }

    /// Stores `event`, whose head is `head`, if it is the latest of its address; at most `quota`
    /// documents of its author.
    /// Queued by this call, not by the first poll.
    ///
    /// # Errors
    /// [`StoreError`]; by its kind the event is not stored, or nobody knows.
    pub fn put(
        &self,
        event: &Event,
        head: Head,
        quota: Option<u32>,
    ) -> impl Future<Output = Result<Put, StoreError>> + Send + use<> {
        let (d, json) = (event.tags.identifier().unwrap_or("").to_owned(), event.as_json());
        self.0.write(move |tx| put(tx, &head, &d, &json, quota))
    }

    /// Up to `most` documents that `filter` may take, newest first, beginning after `after`.
    ///
    /// The database looks at ids, authors, kinds, `#p`, `#d`, since and until; the caller still
    /// has to match the rest of the filter.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn page(
        &self,
        filter: &Filter,
        now: Unix,
        after: Option<Position>,
        most: u32,
    ) -> impl Future<Output = Result<Page, StoreError>> + Send + use<> {
        let filter = filter.clone();
        self.0.read(move |read| page(read, &filter, now, after.as_ref(), most))
    }

    /// Removes what has expired before `now`; how many documents.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn sweep(&self, now: Unix) -> impl Future<Output = Result<u64, StoreError>> + Send + use<> {
        self.0.write(move |tx| tx.run("DELETE FROM documents WHERE expires_at < ?1", &[&now]))
    }
}

fn put(
    tx: &Tx<'_>,
    head: &Head,
    d: &str,
    json: &str,
    quota: Option<u32>,
) -> Result<Put, StoreError> {
    let (author, id) = (to_hex(&head.pubkey), to_hex(&head.id));
    let (kind, created_at) = (u32::from(head.kind), head.created_at.0);
    let address: [&dyn ToColumn; 3] = [&author, &kind, &d];
    let standing = tx.one(
        "SELECT id, created_at FROM documents WHERE author = ?1 AND kind = ?2 AND d = ?3",
        &address,
        |row| Ok((row.get::<String>("id")?, row.get::<u64>("created_at")?)),
    )?;
    match &standing {
        Some((other, _)) if *other == id => return Ok(Put::Known),
        Some((other, at)) if *at > created_at || (*at == created_at && *other < id) => {
            return Ok(Put::Older);
        }
        Some(_) => {}
        // whoever has no quota may have very many, which nobody needs to count
        None => {
            if let Some(quota) = quota
                && held(tx, &author)? >= u64::from(quota)
            {
                return Ok(Put::Quota);
            }
        }
    }
    tx.run_one(
        "documents",
        "INSERT INTO documents (author, kind, d, id, created_at, reader, expires_at, event)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT (author, kind, d) DO UPDATE SET id = excluded.id,
             created_at = excluded.created_at, reader = excluded.reader,
             expires_at = excluded.expires_at, event = excluded.event",
        &[
            &author,
            &kind,
            &d,
            &id,
            &created_at,
            &head.recipient.map(|key| to_hex(&key)),
            &head.expiration,
            &json,
        ],
    )?;
    Ok(Put::Stored)
}

/// How many documents of `author` there are.
fn held(read: &Read<'_>, author: &str) -> Result<u64, StoreError> {
    let sql = "SELECT count(*) AS held FROM documents WHERE author = ?1";
    Ok(read.one(sql, &[&author], |row| row.get("held"))?.unwrap_or(0))
}

fn page(
    read: &Read<'_>,
    filter: &Filter,
    now: Unix,
    after: Option<&Position>,
    most: u32,
) -> Result<Page, StoreError> {
    let mut clauses = vec!["(expires_at IS NULL OR expires_at >= ?)"];
    let mut values: Vec<Box<dyn ToColumn>> = vec![Box::new(now)];
    let mut within = |clause, set: Vec<String>| {
        clauses.push(clause);
        values.push(Box::new(Json(set)));
    };
    // an empty set of ids, authors or kinds is no condition, as in `Filter::match_event`
    if let Some(ids) = filter.ids.as_ref().filter(|ids| !ids.is_empty()) {
        within("id IN (SELECT value FROM json_each(?))", ids.iter().map(EventId::to_hex).collect());
    }
    if let Some(authors) = filter.authors.as_ref().filter(|authors| !authors.is_empty()) {
        let authors = authors.iter().map(PublicKey::to_hex).collect();
        within("author IN (SELECT value FROM json_each(?))", authors);
    }
    let tag = |letter| filter.generic_tags.get(&SingleLetterTag::lowercase(letter));
    if let Some(readers) = tag(Alphabet::P) {
        within("reader IN (SELECT value FROM json_each(?))", readers.iter().cloned().collect());
    }
    if let Some(names) = tag(Alphabet::D) {
        within("d IN (SELECT value FROM json_each(?))", names.iter().cloned().collect());
    }
    if let Some(kinds) = filter.kinds.as_ref().filter(|kinds| !kinds.is_empty()) {
        clauses.push("kind IN (SELECT value FROM json_each(?))");
        values.push(Box::new(Json(kinds.iter().map(|kind| kind.as_u16()).collect::<Vec<_>>())));
    }
    // a bound beyond what the database can hold is no bound
    let bound = |at: nostr::Timestamp| i64::try_from(at.as_secs()).unwrap_or(i64::MAX);
    if let Some(since) = filter.since {
        clauses.push("created_at >= ?");
        values.push(Box::new(bound(since)));
    }
    if let Some(until) = filter.until {
        clauses.push("created_at <= ?");
        values.push(Box::new(bound(until)));
    }
    if let Some(Position { created_at, id }) = after {
        clauses.push("(created_at < ? OR (created_at = ? AND id > ?))");
        values.push(Box::new(*created_at));
        values.push(Box::new(*created_at));
        values.push(Box::new(id.clone()));
    }
    values.push(Box::new(most));
    let sql = format!(
        "SELECT event, created_at, id FROM documents WHERE {} ORDER BY created_at DESC, id LIMIT ?",
        clauses.join(" AND ")
    );
    let values: Vec<&dyn ToColumn> = values.iter().map(AsRef::as_ref).collect();
    let rows = read.all(&sql, &values, |row| {
        let at = Position { created_at: row.get("created_at")?, id: row.get("id")? };
        Ok((row.get::<String>("event")?, at))
    })?;
    let full = u32::try_from(rows.len()).unwrap_or(u32::MAX) >= most;
    let next = rows.last().filter(|_| full).map(|(_, at)| at.clone());
    Ok(Page { events: rows.into_iter().map(|(event, _)| event).collect(), next })
}

#[cfg(test)]
mod tests {
    use nostr::{EventBuilder, Keys, Kind, Tag, Timestamp};

    use super::*;

    fn document(keys: &Keys, d: &str, at: u64, tags: Vec<Tag>) -> Event {
        EventBuilder::new(Kind::from(30078), "sealed")
            .tag(Tag::identifier(d))
            .tags(tags)
            .custom_created_at(Timestamp::from(at))
            .sign_with_keys(keys)
            .unwrap()
    }

    fn open(folder: &tempfile::TempDir) -> RelayDocs {
        RelayDocs::open(&folder.path().join("relay.db"), Unix(1)).unwrap()
    }

    async fn put(docs: &RelayDocs, event: &Event, quota: Option<u32>) -> Put {
        docs.put(event, Head::of(event).unwrap(), quota).await.unwrap()
    }

    async fn all(docs: &RelayDocs, filter: Filter, now: u64, most: u32) -> Vec<EventId> {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = docs.page(&filter, Unix(now), after, most).await.unwrap();
            found.extend(page.events.iter().map(|json| Event::from_json(json).unwrap().id));
            assert!(found.len() < 100, "a page that repeats itself");
            after = page.next;
            if after.is_none() {
                return found;
            }
        }
    }

    /// Loss prevented: relay and machine keep different documents of one second, so a machine runs
    /// on fees that nobody sees.
    #[tokio::test]
    async fn the_latest_stays_and_of_equals_the_lower_id() {
        let folder = tempfile::tempdir().unwrap();
        let docs = open(&folder);
        let keys = Keys::generate();
        let mut same = [
            document(&keys, "fees", 10, vec![]),
            document(&keys, "fees", 10, vec![Tag::hashtag("x")]),
        ];
        same.sort_by_key(|event| event.id);
        let [low, high] = same;
        let newer = document(&keys, "fees", 11, vec![]);
        assert_eq!(put(&docs, &high, None).await, Put::Stored);
        assert_eq!(put(&docs, &high, None).await, Put::Known);
        assert_eq!(put(&docs, &low, None).await, Put::Stored);
        assert_eq!(put(&docs, &high, None).await, Put::Older);
        assert_eq!(all(&docs, Filter::new(), 1, 9).await, [low.id]);
        assert_eq!(put(&docs, &newer, None).await, Put::Stored);
        assert_eq!(put(&docs, &low, None).await, Put::Older);
        let other = document(&Keys::generate(), "fees", 1, vec![]);
        assert_eq!(put(&docs, &other, None).await, Put::Stored, "another author's address");
        drop(docs);
        let reopened = open(&folder);
        assert_eq!(all(&reopened, Filter::new(), 1, 9).await, [newer.id, other.id]);
    }

    /// Loss prevented: a machine's document is missing from the answer, or another's is in it.
    #[tokio::test]
    async fn a_query_finds_what_the_filter_names_page_by_page() {
        let folder = tempfile::tempdir().unwrap();
        let docs = open(&folder);
        let (author, reader) = (Keys::generate(), Keys::generate().public_key());
        let mut mine = Vec::new();
        for n in 0..5 {
            let event =
                document(&author, &format!("d{n}"), 100 + n / 2, vec![Tag::public_key(reader)]);
            put(&docs, &event, None).await;
            mine.push(event);
        }
        put(&docs, &document(&author, "other", 200, vec![]), None).await;
        mine.sort_by(|a, b| b.created_at.cmp(&a.created_at).then(a.id.cmp(&b.id)));
        let expected: Vec<_> = mine.iter().map(|event| event.id).collect();
        let to = Filter::new().pubkey(reader);
        for most in [1, 2, 5, 6] {
            assert_eq!(all(&docs, to.clone(), 1, most).await, expected, "pages of {most}");
        }
        let one = &mine[2];
        let d = one.tags.identifier().unwrap();
        let kind = Kind::from(30078);
        for filter in [
            Filter::new().id(one.id),
            to.clone().author(author.public_key()).identifier(d).kind(kind),
            to.clone().identifier(d).since(one.created_at).until(one.created_at),
        ] {
            assert_eq!(all(&docs, filter, 1, 9).await, [one.id]);
        }
        for filter in [
            to.clone().kind(Kind::from(30079)),
            to.clone().author(reader),
            to.clone().since(Timestamp::from(u64::MAX)),
            to.until(Timestamp::from(1)),
            Filter::new().pubkey(author.public_key()),
        ] {
            assert_eq!(all(&docs, filter.clone(), 1, 9).await, [], "{filter:?}");
        }
    }

    /// Loss prevented: a machine applies a document that its author has withdrawn by its date.
    #[tokio::test]
    async fn an_expired_document_is_not_read_and_swept() {
        let folder = tempfile::tempdir().unwrap();
        let docs = open(&folder);
        let keys = Keys::generate();
        let expires = Tag::expiration(Timestamp::from(50));
        let brief = document(&keys, "brief", 10, vec![expires]);
        put(&docs, &brief, None).await;
        assert_eq!(all(&docs, Filter::new(), 50, 9).await, [brief.id]);
        assert_eq!(all(&docs, Filter::new(), 51, 9).await, []);
        assert_eq!(docs.sweep(Unix(50)).await.unwrap(), 0);
        assert_eq!(docs.sweep(Unix(51)).await.unwrap(), 1);
        assert_eq!(all(&docs, Filter::new(), 50, 9).await, []);
    }

    /// Loss prevented: one machine whose key is stolen fills the operator's disk.
    #[tokio::test]
    async fn an_author_holds_no_more_than_its_quota() {
        let folder = tempfile::tempdir().unwrap();
        let docs = open(&folder);
        let keys = Keys::generate();
        assert_eq!(put(&docs, &document(&keys, "a", 1, vec![]), Some(1)).await, Put::Stored);
        assert_eq!(put(&docs, &document(&keys, "b", 1, vec![]), Some(1)).await, Put::Quota);
        assert_eq!(put(&docs, &document(&keys, "a", 2, vec![]), Some(1)).await, Put::Stored);
        assert_eq!(put(&docs, &document(&keys, "b", 1, vec![]), None).await, Put::Stored);
    }
}
