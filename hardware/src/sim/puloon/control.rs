//! What goes wrong at a simulated LCDM, and what can be set.

use serde::Deserialize;

/// What is understood, for errors and help.
pub(super) const ACTIONS: &str = r#"
{"action":"take"} the customer takes the notes at the exit;
{"action":"refill","bay":1,"notes":100};
{"action":"pull","bay":1} and {"action":"insert","bay":1} a cassette;
{"action":"collect_rejects"} empties the reject tray;
{"action":"power_off"} and {"action":"power_on"};
{"action":"arm","trap":T,"bay":B,"at_note":N,"at_byte":N,"times":K} with T one of reject, double,
jam, pull, miscount, power_cut, nak_frame, damage_reply, mute_all, mute_reply (bay, at_note, at_byte
and times are optional);
{"action":"disarm"} forgets every trap;
{"action":"set","note_ms":N,"tray":true,"keeps_last":true,"strict_serial":true,"resets":N}: notes
fall into a tray, out of the exit sensor's sight; the last result outlives a power cut; a dispense
with the serial number of the last one repeats its result; replies to a reset, 0 to 2"#;

/// What can be set.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Set {
    pub(super) note_ms: Option<u64>,
    pub(super) tray: Option<bool>,
    pub(super) keeps_last: Option<bool>,
    pub(super) strict_serial: Option<bool>,
    pub(super) resets: Option<u8>,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trap {
    /// A note goes to the reject tray.
    Reject,
    /// Two notes stick together and go to the reject tray; the device counts one reject.
    Double,
    /// A note gets stuck in the path.
    Jam,
    /// The cassette is pulled before the note is picked.
    Pull,
    /// A note goes out and the exit sensor misses it; the device notices that its counts differ.
    Miscount,
    /// The power fails: in the middle of note `at_note`, or after byte `at_byte` of the reply.
    PowerCut,
    /// `NAK` to a frame.
    NakFrame,
    /// A reply goes out with a wrong check.
    DamageReply,
    /// The device takes a frame and says nothing at all about it, not even `ACK`.
    MuteAll,
    /// The device takes a frame, works, and never answers.
    MuteReply,
}
