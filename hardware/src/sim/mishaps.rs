//! What happens to a simulated device's words on their way: lost, damaged, cut off with its power.

/// What is still to happen.
#[derive(Clone, Debug, Default)]
pub(super) struct Mishaps {
    /// So many replies are lost; their commands are obeyed.
    pub(super) silent_replies: u64,
    /// So many commands are lost.
    pub(super) deaf_frames: u64,
    /// So many replies have a wrong check.
    pub(super) damaged_replies: u64,
    /// So many bytes more, and the power goes.
    pub(super) bytes_left: Option<u64>,
}

impl Mishaps {
    /// Whether the command that has come is lost.
    pub(super) fn is_deaf(&mut self) -> bool {
        take_one(&mut self.deaf_frames)
    }

    /// Says what `write` writes; `false` where the power goes with it.
    #[must_use]
    pub(super) fn say(&mut self, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        if take_one(&mut self.silent_replies) {
            return true;
        }
        let start = out.len();
        write(out);
        if take_one(&mut self.damaged_replies)
            && let Some(check) = out.last_mut()
        {
            *check ^= 0x01;
        }
        let Some(left) = self.bytes_left else { return true };
        let said = u64::try_from(out.len().saturating_sub(start)).unwrap_or(u64::MAX);
        self.bytes_left = left.checked_sub(said);
        if self.bytes_left.is_none() {
            out.truncate(start.saturating_add(usize::try_from(left).unwrap_or(usize::MAX)));
        }
        self.bytes_left.is_some()
    }
}

/// Whether one of these is left; then there is one less.
const fn take_one(left: &mut u64) -> bool {
    match left.checked_sub(1) {
        Some(less) => {
            *left = less;
            true
        }
        None => false,
    }
}
