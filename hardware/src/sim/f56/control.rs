//! What goes wrong at the simulated F53/F56, and what can be set.

use serde::Deserialize;

/// What is understood, for errors and help.
pub(super) const ACTIONS: &str = r#"
{"action":"take"} the customer takes the notes at the exit;
{"action":"refill","bay":1,"notes":100};
{"action":"pull","bay":1} and {"action":"insert","bay":1} a cassette;
{"action":"collect_rejects"} empties the reject bin;
{"action":"power_off"} and {"action":"power_on"};
{"action":"arm","trap":T,"bay":B,"at_note":N,"at_byte":N,"times":K} with T one of reject, jam,
pull, power_cut, nak_enq, nak_frame, damage_reply, collide, mute_all, mute_reply (bay, at_note,
at_byte and times are optional);
{"action":"disarm"} forgets every trap;
{"action":"set","note_ms":N,"short_reply":true}"#;

/// What can be set.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Set {
    pub(super) note_ms: Option<u64>,
    pub(super) short_reply: Option<bool>,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trap {
    /// A note goes to the reject bin.
    Reject,
    /// A note gets stuck in the path.
    Jam,
    /// The cassette is pulled before the note is picked.
    Pull,
    /// The power fails: in the middle of note `at_note`, or after byte `at_byte` of the reply.
    PowerCut,
    /// `NAK` to an `ENQ`.
    NakEnq,
    /// `NAK` to a frame.
    NakFrame,
    /// A reply goes out with a wrong checksum.
    DamageReply,
    /// The device answers an `ENQ` with an `ENQ` of its own.
    Collide,
    /// The device takes a frame and says nothing at all about it, not even `ACK`.
    MuteAll,
    /// The device takes a frame, works, and never answers.
    MuteReply,
}
