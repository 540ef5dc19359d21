//! A name for each reason, for programs: it stays, whatever the words become.

use super::{AskError, CallError, SignerState};

impl CallError {
    /// The name of the reason.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoReply { state: SignerState::Unavailable, .. } => "bunker_not_reached",
            Self::NoReply { .. } => "bunker_no_reply",
            Self::Rejected { .. } => "bunker_refused",
            Self::Unsupported { .. } => "bunker_lacks_method",
            Self::AlreadyRedeemed => "seed_redeemed",
            Self::WrongSecret | Self::SecretNeeded => "seed_unknown",
            Self::WrongUser { .. } => "bunker_other_key",
            Self::Unexpected { .. } | Self::OtherEvent { .. } | Self::BadSignature => "bunker_lied",
        }
    }
}

impl AskError {
    /// The name of the reason.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Full => "bunker_busy",
            Self::IdInUse(_) | Self::ForeignEvent { .. } | Self::Json(_) => "bunker_request",
        }
    }
}
