//! A recycler's boxes: what it counts in them, held against the books.
//!
//! Promise: a note that came in stands in the cashbox's books from the moment at which it counts for
//! the customer; where the device then counts one note more in a box that keeps such notes, one entry
//! moves it there. What a box has become more or less beyond that is written down as a difference,
//! with an alert that names both numbers: the box gives no more than the smaller of them until
//! somebody has counted. Nothing that the device counts changes what the books say of sales: of a
//! payout that was cut off, its counts are evidence for the person who decides.
//!
//! The device tells its counts when it comes up, and when they have changed; after each note and
//! each payout it is asked, since a note that lies in the cashbox changes none of them. Counts that
//! come while notes go out, or while somebody is in service mode, are asked for again afterwards.
//!
//! Where somebody counts first, by hand, the notes of which the device has yet to tell are found
//! there: a box that has so many more than its books has them, and of a cashbox that has so many
//! fewer they are in the one box that keeps them. So a device that does not count makes no note
//! appear in two places, nor two differences that cancel.
//!
//! A machine whose devices were others before (a dispenser's bays became boxes, or the other way
//! round) sells nothing from a bay with notes until somebody has counted it.
//!
//! Failure policy: a device that does not count leaves the notes in the cashbox's books; they are
//! sorted as soon as it does.

use std::collections::BTreeMap;

use bitspire_hardware::dispenser::DispenserCommand;
use bitspire_hardware::recycler::RecyclerEvent;
use bitspire_shared::ids::BayId;
use bitspire_shared::money::Denomination;
use bitspire_shared::rpc::DeviceStatus;

use super::VaultError;
use super::core::Vault;
use crate::journal::{Bay, CashMove, Entry, Holdings, StoredTxn};
use crate::txn::Input;

/// Whether the device is to be asked for its counts.
#[derive(Debug, Default)]
pub(super) struct Boxes {
    due: bool,
}

impl Boxes {
    /// A note came or went, or the books have changed.
    pub(super) fn ask(&mut self) {
        self.due = true;
    }
}

impl Vault {
    /// Asks for the counts, where that is due and nothing stands in the way.
    pub(super) fn count_boxes_if_due(&mut self) {
        if self.config.recycler.is_none() || !self.boxes.due || !self.boxes_rest() {
            return;
        }
        let now = self.mono();
        let Some(giver) = &mut self.dispenser else { return };
        // one that is not set up would call the question a fault
        if giver.status == DeviceStatus::Ready && !giver.is_coming(now) {
            self.boxes.due = !giver.send(DispenserCommand::Refresh);
        }
    }

    /// Whether what the device counts can be held against the books.
    fn boxes_rest(&self) -> bool {
        self.dispensing.is_none() && !self.service.is_inside()
    }

    /// What it says beside what a validator and a dispenser say.
    pub(super) fn recycler_says(&mut self, event: RecyclerEvent) -> Result<(), VaultError> {
        match event {
            RecyclerEvent::Counts(counts) => {
                tracing::info!(event = "boxes_counted", ?counts);
                self.boxes.due = !self.boxes_rest();
                if !self.boxes.due {
                    self.sort_notes(&counts)?;
                }
            }
            RecyclerEvent::Followed { taken, gave_back, fault } => {
                let back = if gave_back { ", a note came back" } else { "" };
                let fault = fault.map_or(String::new(), |fault| format!(", {}", fault.detail));
                let words = format!(
                    "a movement of unknown end is over: {taken} notes were heard to be taken since \
                     the device was met{back}{fault}"
                );
                // there is one movement at a time: it is that of the last intent that has no end
                let open = self.journal.open_txns()?.into_iter();
                let gives = |txn: &StoredTxn| {
                    txn.intent.as_ref().filter(|intent| intent.what == "dispense").map(|i| i.seq)
                };
                let last = open.filter(|txn| gives(txn).is_some()).max_by_key(gives);
                let input = Input::Followed { detail: words.clone() };
                self.queue.extend(last.map(|txn| (txn.txid, input)));
                self.raise("recycler_followed", words);
                self.boxes.ask();
            }
            // nobody here asks for one
            RecyclerEvent::Emptied { bay, outcome } => {
                self.raise("box_emptied", format!("bay {bay}: {outcome:?}"));
            }
            RecyclerEvent::In(_) | RecyclerEvent::Out(_) => {}
        }
        Ok(())
    }

    /// Writes what the device's counts say of where notes are.
    fn sort_notes(&mut self, counts: &BTreeMap<BayId, u32>) -> Result<(), VaultError> {
        let moves = sorted(self.journal.holdings(), counts);
        if moves.is_empty() {
            return Ok(());
        }
        for movement in &moves {
            if let CashMove::Differs { bay, by } = movement {
                let booked = self.journal.holdings().bays.get(bay).map(Bay::on_hand);
                tracing::error!(event = "box_differs", %bay, by, booked, counted = counts.get(bay));
            }
        }
        self.append(Entry::Cash(moves))?;
        self.reports.soon(self.mono());
        Ok(())
    }

    /// Before anything else of a start: which bays there are by the configuration.
    pub(super) fn fit_bays(&mut self) -> Result<(), VaultError> {
        let boxes = match (&self.config.recycler, &self.dispenser) {
            (Some(recycler), _) => recycler.bays.clone(),
            (None, Some(_)) => BTreeMap::new(),
            (None, None) => return Ok(()),
        };
        let moves = fitted(self.journal.holdings(), &boxes);
        let other = |movement: &CashMove| match movement {
            CashMove::Assign { bay, denomination, .. } => {
                let held = self.journal.holdings().bays.get(bay)?;
                let gone = held.denomination != *denomination && held.on_hand() != 0;
                let (notes, minor) = (held.on_hand(), held.denomination.minor());
                gone.then(|| format!("{notes} notes of {minor} minor units in bay {bay}"))
            }
            _ => None,
        };
        let gone: Vec<_> = moves.iter().filter_map(other).collect();
        if !gone.is_empty() {
            let words = "other notes are kept from now on where the books had";
            self.raise("refitted", format!("{words} {}", gone.join(", ")));
        }
        let doubted = |movement: &CashMove| match movement {
            CashMove::Doubt { bay } => Some(bay.to_string()),
            _ => None,
        };
        let doubted: Vec<_> = moves.iter().filter_map(doubted).collect();
        if !doubted.is_empty() {
            let words = "the devices are others than before; count what lies in bay ";
            self.raise("refitted", format!("{words}{}", doubted.join(", ")));
        }
        if !moves.is_empty() {
            self.append(Entry::Cash(moves))?;
        }
        Ok(())
    }
}

/// What follows from the counts of a device at rest.
fn sorted(held: &Holdings, counts: &BTreeMap<BayId, u32>) -> Vec<CashMove> {
    let mut moves = Vec::new();
    let mut unsorted = held.unsorted.clone();
    for (bay, books) in held.bays.iter().filter(|(_, books)| books.recycles) {
        // a box that is out keeps nothing: what comes back with it is nobody's note of today
        let Some(counted) = counts.get(bay) else { continue };
        let more = i64::from(*counted).saturating_sub(books.by_device());
        let open = unsorted.get(&books.denomination).copied().unwrap_or(0);
        let kept = more.clamp(0, open);
        if let Ok(notes @ 1..) = u32::try_from(kept) {
            let denomination = books.denomination;
            moves.push(CashMove::Recycled { bay: *bay, denomination, notes });
            unsorted.insert(denomination, open.saturating_sub(kept));
        }
        let by = more.saturating_sub(kept);
        if by != 0 {
            moves.push(CashMove::Differs { bay: *bay, by });
        }
    }
    let in_cashbox = unsorted.into_iter().filter(|(_, notes)| *notes > 0);
    moves.extend(in_cashbox.map(|(denomination, _)| CashMove::Sorted { denomination }));
    moves
}

/// What somebody finds in a box of the notes of which its device has yet to tell; to be written before
/// the count itself.
pub(super) fn found_in_box(held: &Holdings, bay: BayId, counted: u32) -> Option<CashMove> {
    let books = held.bays.get(&bay).filter(|books| books.recycles)?;
    let denomination = books.denomination;
    let open = held.unsorted.get(&denomination).copied().unwrap_or(0);
    let more = i64::from(counted).saturating_sub(books.on_hand());
    let notes = u32::try_from(more.min(open)).ok().filter(|notes| *notes > 0)?;
    Some(CashMove::Recycled { bay, denomination, notes })
}

/// What somebody who counts the cashbox misses there of such notes; to be written before its count.
/// Where two boxes keep them nobody can say which has them: that is left to whoever counts these.
pub(super) fn missed_in_cashbox(
    held: &Holdings,
    counted: &BTreeMap<Denomination, u32>,
) -> Vec<CashMove> {
    let missed = |(denomination, open): (&Denomination, &i64)| {
        let denomination = *denomination;
        let keeps = |bay: &Bay| bay.recycles && bay.denomination == denomination;
        let mut boxes = held.bays.iter().filter(|(_, bay)| keeps(bay));
        let (Some((bay, _)), None) = (boxes.next(), boxes.next()) else { return None };
        // what came back lies in the same box
        let heaps = [&held.cashbox, &held.reject_bin].into_iter();
        let heaps = heaps.filter_map(|heaps| heaps.get(&denomination));
        let booked = heaps.fold(0i64, |sum, heap| sum.saturating_add(heap.count));
        let there = counted.get(&denomination).copied().unwrap_or(0);
        let missing = booked.saturating_sub(there.into()).min(*open);
        let notes = u32::try_from(missing).ok().filter(|notes| *notes > 0)?;
        Some(CashMove::Recycled { bay: *bay, denomination, notes })
    };
    held.unsorted.iter().filter_map(missed).collect()
}

/// What follows from the boxes that are configured; none where the bays are a dispenser's.
fn fitted(held: &Holdings, boxes: &BTreeMap<BayId, Denomination>) -> Vec<CashMove> {
    let mut moves = Vec::new();
    for (bay, denomination) in boxes {
        let (bay, denomination) = (*bay, *denomination);
        let books = held.bays.get(&bay);
        if books.is_none_or(|books| !books.recycles || books.denomination != denomination) {
            moves.push(CashMove::Assign { bay, denomination, recycles: true });
        }
    }
    for (bay, books) in &held.bays {
        let (bay, denomination) = (*bay, books.denomination);
        let own = boxes.get(&bay);
        if boxes.is_empty() && books.recycles {
            moves.push(CashMove::Assign { bay, denomination, recycles: false });
        }
        let stays = match own {
            // other notes begin at nothing
            Some(note) => books.recycles || *note != denomination,
            // nobody sells what is not fitted; a dispenser's bays go by its own configuration
            None => boxes.is_empty() && !books.recycles,
        };
        if !stays && books.doubts == 0 && books.on_hand() != 0 {
            moves.push(CashMove::Doubt { bay });
        }
    }
    if boxes.is_empty() {
        let denominations = held.unsorted.keys();
        moves.extend(denominations.map(|value| CashMove::Sorted { denomination: *value }));
    }
    moves
}

#[cfg(test)]
mod tests;
