//! The codes that machines show: what a customer's wallet asks by.
//!
//! Promise: an offer names the quote whose one invoice it brings, a debit the withdraw and its live k1:
//! nothing can be reached by a code that the bolt11 and the LNURL beside it do not reach. Where CLINK is
//! not served there are none.

use bitspire_shared::clink::{DebitPointer, Ndebit, OfferPointer, PriceType};
use bitspire_shared::ids::{PubKey, QuoteId, WithdrawId};
use bitspire_shared::money::Sats;

use crate::app::App;
use crate::store::withdraws::K1;

/// Makes codes, where they are served.
#[derive(Clone, Debug)]
pub(crate) struct Codes {
    service: PubKey,
    relay: Option<String>,
}

impl Codes {
    /// As the configuration has it.
    pub(crate) fn of(app: &App) -> Self {
        Self { service: app.service_key, relay: app.config.clink.clone() }
    }

    /// The offer of a cash_out's invoice.
    pub(crate) fn offer(&self, quote: QuoteId, sats: Sats) -> Option<String> {
        let offer = OfferPointer {
            pubkey: self.service,
            relay: self.relay.clone()?,
            offer: quote.to_string(),
            price_type: PriceType::Fixed,
            price: Some(sats),
        };
        // the configuration has taken no relay that is too long
        offer.encode().ok()
    }

    /// The debit of a withdraw.
    pub(crate) fn debit(&self, withdraw: WithdrawId, k1: &K1) -> Option<Ndebit> {
        let debit = DebitPointer {
            pubkey: self.service,
            relay: self.relay.clone()?,
            pointer: Some(withdraw.to_string()),
            k1: Some(k1.bytes()),
        };
        debit.encode().ok()
    }
}
