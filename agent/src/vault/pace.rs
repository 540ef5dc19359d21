//! How fast the vault goes: the intervals that are nobody's limit on money.

/// Intervals, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Between two looks at the clock.
    pub tick: u64,
    /// How long the page may take to confirm a screen.
    pub confirm: u64,
    /// How long an end is shown at least.
    pub read: u64,
    /// How long the machine may take to come up before it says that it is out of service.
    pub starting: u64,
    /// How long changes are gathered for one report.
    pub gather: u64,
    /// Least time between two reports.
    pub report_gap: u64,
    /// Between two questions whether the pairing is confirmed.
    pub ask_confirmed: u64,
    /// How long an answer is waited for before `net` is reminded of the request.
    pub ask_again: u64,
    /// Between two tries of a note validator that needs a hand, which ends by its RESET alone.
    pub reset: u64,
    /// How long notes may lie at the exit before their buyer is reminded of them.
    pub remind: u64,
    /// How long their sale stays on the screen for them, before the operator is told.
    pub left: u64,
    /// Between two moves of the journal's log into its database.
    pub checkpoint: u64,
    /// From the start to the first look through the whole journal.
    pub first_inspect: u64,
    /// Between two looks through the whole journal.
    pub inspect: u64,
    /// Least time between two answers with the devices' frames, whoever asks.
    pub trace_gap: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            tick: 1_000,
            confirm: 5_000,
            read: 1_000,
            starting: 20_000,
            gather: 500,
            report_gap: 5_000,
            ask_confirmed: 10_000,
            ask_again: 60_000,
            reset: 30_000,
            remind: 15_000,
            left: 120_000,
            checkpoint: 600_000,
            first_inspect: 60_000,
            inspect: 86_400_000,
            trace_gap: 250,
        }
    }
}
