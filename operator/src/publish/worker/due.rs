//! What of the outbox is tried next.
//!
//! Promise: page by page in the order in which documents became due, each once at a time. Read
//! [anew](Due::anew), it begins with what is hurried, and finds what became due meanwhile.
//!
//! Failure policy: [`StoreError`]; nothing is written here.

use std::collections::{BTreeSet, VecDeque};

use crate::app::App;
use crate::ids::OutboxId;
use crate::store::outbox::{self, Position, Waiting};
use crate::store::{Kept, StoreError};

/// Documents that are read from the outbox at once.
const PAGE: u32 = 64;

/// What is due.
pub(super) struct Due {
    page: VecDeque<Kept<OutboxId, Waiting>>,
    /// Where the next page begins; `None` after the last.
    after: Option<Position>,
    under_way: BTreeSet<OutboxId>,
}

impl Due {
    pub(super) const fn new() -> Self {
        let after = Some(outbox::START);
        Self { page: VecDeque::new(), after, under_way: BTreeSet::new() }
    }

    /// The next one, which is under way from now on; `None` where no more is due.
    pub(super) async fn next(
        &mut self,
        app: &App,
    ) -> Result<Option<Kept<OutboxId, Waiting>>, StoreError> {
        loop {
            if let Some(waiting) = self.page.pop_front() {
                self.under_way.insert(waiting.id);
                return Ok(Some(waiting));
            }
            let Some(after) = self.after else { return Ok(None) };
            let now = app.clock.now();
            let page = app.store.read(move |read| outbox::due_documents(read, now, after, PAGE));
            let page: Vec<_> = page.await?;
            self.after = page.last().map(|waiting| (waiting.not_before, waiting.id));
            let begun = |waiting: &Kept<OutboxId, Waiting>| self.under_way.contains(&waiting.id);
            self.page.extend(page.into_iter().filter(|waiting| !begun(waiting)));
        }
    }

    /// This one is not under way any more.
    pub(super) fn ended(&mut self, id: OutboxId) {
        self.under_way.remove(&id);
    }

    /// From now on, from the start.
    pub(super) fn anew(&mut self) {
        self.page.clear();
        self.after = Some(outbox::START);
    }
}
