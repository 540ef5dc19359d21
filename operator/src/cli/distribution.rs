//! `distribution ...`: where fees go, what is on its way there, and what waits.

use std::str::FromStr;

use bitspire_shared::ids::TxnId;
use clap::{Args, Subcommand};
use nostr::types::url::form_urlencoded::byte_serialize;
use serde_json::{Value, json};

use super::CliError;
use super::client::{Answer, Client};
use crate::http::Fraction;
use crate::ids::{LegId, LpId, MachineId, OperatorId, RuleSetId, SettlementId};
use crate::store::rules::Destination;

#[derive(Debug, Subcommand)]
pub(super) enum DistributionVerb {
    /// List what is not distributed: errored, held, in work, to be worked on
    List,
    /// Show one settlement with its legs, each with what its wallet said
    Show {
        /// Its number, as `settlements` shows it
        settlement: SettlementId,
    },
    /// Derive a settlement again and show each difference: request, quote, wallets, reports, books, legs
    ///
    /// Exit code 0 where no difference was found, 1 where one was.
    Verify {
        /// Its number, as `settlements` shows it
        settlement: SettlementId,
    },
    /// Let a held settlement be distributed, after looking at what held it
    ///
    /// Refused before its machine has reported how the sale ended.
    Release(Decided),
    /// Try the failed legs of an errored settlement once more
    ///
    /// A leg fails only when its wallet has said so for its very payment, so nothing is paid twice.
    Resume(Decided),
    /// End a leg without paying it: its sats stay in the machine's wallet
    Void(DecidedLeg),
    /// End a leg that was paid by other means
    ///
    /// The platform's fee is then booked as the operator's, who has paid it.
    ByHand(DecidedLeg),
    /// Show the rule sets: who gets which share, from when on, signed by whom
    Rules,
    /// Change who gets which share of a fee, or where a liquidity provider's sats go
    ///
    /// The operator's key signs the change. It counts after distribution.rules_delay_hours, at once
    /// before the first sale, and can be cancelled until then. Without --to the fee stays in the
    /// machine's wallet (--super: it waits; --machine: the operator's rules count again; --lp: their
    /// sats are kept there until you settle them).
    SetRules(SetRules),
    /// Cancel a change that does not count yet
    CancelRules {
        /// The rule set, as `distribution rules` shows it
        rules: RuleSetId,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum PayoutVerb {
    /// List payments to customers and of legs whose end is not known yet
    List,
    /// List notes that vaults claimed after the revoke of their machines: `offered` says which have
    /// a withdraw
    Kept,
    /// Offer the sats for such notes to their customer, who gets them with the claim code
    ///
    /// The notes lie in the machine: look before. At most once for each transaction; a machine that is
    /// paired again claims for itself, finds this, and pays nothing a second time.
    Offer {
        /// The transaction, as `payout kept` shows it
        txid: TxnId,
        /// The number of its machine
        #[arg(long)]
        machine: MachineId,
        /// Why, for the audit log
        #[arg(long)]
        reason: String,
    },
    /// End a payment whose wallet never says how it ended, after looking into the wallet's history
    ///
    /// With --preimage it was paid: the preimage is the proof. Without, it was not paid and is
    /// offered again: taken only a day after the invoice's end, and only of a wallet that looks up
    /// its own invoices alone (NWC). WARNING: whoever was paid after all is then paid twice.
    Close {
        /// The payment's hash, as `payout list` shows it
        payment_hash: String,
        /// Its preimage, in hex, as the wallet shows it
        #[arg(long, value_name = "HEX")]
        preimage: Option<String>,
        /// What routing cost [default: 0]
        #[arg(long, value_name = "SATS", requires = "preimage")]
        routing: Option<u64>,
        /// Why, for the audit log
        #[arg(long)]
        reason: String,
    },
}

/// Asks for it.
pub(super) fn payout(client: &Client, verb: PayoutVerb) -> Result<Answer, CliError> {
    Ok(match verb {
        PayoutVerb::List => client.get("/dca/payouts")?,
        PayoutVerb::Kept => client.get("/dca/kept-claims")?,
        PayoutVerb::Offer { txid, machine, reason } => {
            let body = json!({ "txid": txid, "machine": machine, "reason": reason });
            client.post("/dca/kept-claims", &body)?
        }
        PayoutVerb::Close { payment_hash, preimage, routing, reason } => {
            let encoded: String = byte_serialize(payment_hash.as_bytes()).collect();
            let body = json!({ "preimage": preimage, "routing_sats": routing, "reason": reason });
            client.post(&format!("/dca/payouts/{encoded}/close"), &body)?
        }
    })
}

#[derive(Debug, Args)]
pub(super) struct Decided {
    /// Its number, as `distribution list` shows it
    pub(super) settlement: SettlementId,
    /// Why, for the audit log
    #[arg(long)]
    pub(super) reason: String,
}

#[derive(Debug, Args)]
pub(super) struct DecidedLeg {
    /// Its number, as `distribution show` shows it
    pub(super) leg: LegId,
    /// Why, for the audit log
    #[arg(long)]
    pub(super) reason: String,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("whose").required(true))]
pub(super) struct SetRules {
    /// Where the platform's fees go
    #[arg(long = "super", group = "whose")]
    pub(super) platform: bool,
    /// Where your fees go
    #[arg(long, group = "whose")]
    pub(super) own: bool,
    /// Where your fees of one machine go
    #[arg(long, group = "whose")]
    pub(super) machine: Option<MachineId>,
    /// Where a liquidity provider's sats go
    #[arg(long, group = "whose")]
    pub(super) lp: Option<LpId>,
    /// Who gets it, and which fraction: wallet:savings=0.4 (a wallet of [wallets] that is no
    /// machine's), ln:me@pay.example=0.6 (a Lightning address), lnurl:LNURL1... (an LNURL-pay);
    /// without a fraction all of it. May be repeated, the last one takes what rounding leaves
    #[arg(long, value_name = "TO[=FRACTION]")]
    pub(super) to: Vec<To>,
    /// Whose fees, where there are several operators
    #[arg(long)]
    pub(super) operator: Option<OperatorId>,
}

/// A share as it is typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct To {
    to: Destination,
    fraction: Fraction,
}

impl FromStr for To {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // an address may have an = of its own
        let (to, fraction) = match text.rsplit_once('=') {
            Some((to, typed)) if !to.starts_with("lnurl:") || typed.parse::<Fraction>().is_ok() => {
                (to, typed)
            }
            _ => (text, "1"),
        };
        let to = match to.split_once(':') {
            Some(("wallet", id)) if !id.is_empty() => Destination::Wallet(id.to_owned()),
            Some(("ln", address)) if address.contains('@') => {
                Destination::LightningAddress(address.to_lowercase())
            }
            Some(("lnurl", link)) if !link.is_empty() => Destination::LnurlPay(led_to(link)?),
            _ => {
                let expected = "wallet:savings, ln:me@pay.example or lnurl:LNURL1...";
                return Err(format!("expected such as {expected}, got {to}"));
            }
        };
        Ok(Self { to, fraction: fraction.parse()? })
    }
}

/// Where an LNURL leads (LUD-01), or the link itself (LUD-17).
fn led_to(link: &str) -> Result<String, String> {
    if let Some(rest) = link.strip_prefix("lnurlp://") {
        return Ok(format!("https://{rest}"));
    }
    if link.contains("://") {
        return Ok(link.to_owned());
    }
    let damaged = |_| format!("expected an LNURL, this one is damaged: {link}");
    let (_, bytes) = bech32::decode(&link.to_lowercase()).map_err(|e| damaged(e.to_string()))?;
    String::from_utf8(bytes).map_err(|e| damaged(e.to_string()))
}

/// Asks for it.
pub(super) fn distribution(client: &Client, verb: DistributionVerb) -> Result<Answer, CliError> {
    let (path, body) = match verb {
        DistributionVerb::List => return Ok(client.get("/dca/distribution")?),
        DistributionVerb::Rules => return Ok(client.get("/dca/rules")?),
        DistributionVerb::Show { settlement } => {
            return Ok(client.get(&format!("/dca/settlements/{settlement}"))?);
        }
        DistributionVerb::Verify { settlement } => {
            (format!("/dca/settlements/{settlement}/verify"), json!({}))
        }
        DistributionVerb::Release(of) => {
            (format!("/dca/settlements/{}/release", of.settlement), json!({ "reason": of.reason }))
        }
        DistributionVerb::Resume(of) => {
            (format!("/dca/settlements/{}/resume", of.settlement), json!({ "reason": of.reason }))
        }
        DistributionVerb::Void(of) => {
            (format!("/dca/legs/{}/end", of.leg), json!({ "how": "void", "reason": of.reason }))
        }
        DistributionVerb::ByHand(of) => {
            (format!("/dca/legs/{}/end", of.leg), json!({ "how": "by_hand", "reason": of.reason }))
        }
        DistributionVerb::CancelRules { rules } => {
            (format!("/dca/rules/{rules}/cancel"), json!({}))
        }
        DistributionVerb::SetRules(set) => {
            let scope = match (set.platform, set.machine, set.lp) {
                (true, ..) => "super",
                (false, Some(_), _) => "machine",
                (false, None, Some(_)) => "lp",
                (false, None, None) => "operator",
            };
            let share = |to: &To| json!({ "fraction": to.fraction, "to": to.to });
            let shares: Vec<Value> = set.to.iter().map(share).collect();
            let body = json!({
                "scope": scope, "machine_id": set.machine, "lp_id": set.lp,
                "operator_id": set.operator, "shares": shares,
            });
            ("/dca/rules".to_owned(), body)
        }
    };
    Ok(client.post(&path, &body)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loss prevented: a share that is read as another one, or a destination by a slip of the hand.
    #[test]
    fn shares_are_read_as_typed() {
        let to: To = "wallet:savings=0.4".parse().unwrap();
        assert_eq!((to.to.to_string(), to.fraction.0.ppm()), ("wallet:savings".into(), 400_000));
        for (typed, told) in [
            ("ln:Me@Pay.example=1", "ln:me@pay.example"),
            ("lnurl:lnurlp://pay.example/a?b=c", "lnurl:https://pay.example/a?b=c"),
        ] {
            let to: To = typed.parse().unwrap();
            assert_eq!((to.to.to_string().as_str(), to.fraction.0.ppm()), (told, 1_000_000));
        }
        let hrp = bech32::Hrp::parse("lnurl").unwrap();
        let link = bech32::encode::<bech32::Bech32>(hrp, b"https://pay.example/a").unwrap();
        for (typed, ppm) in
            [(format!("lnurl:{link}=0.25"), 250_000), (format!("lnurl:{link}"), 1_000_000)]
        {
            let to: To = typed.to_uppercase().replace("LNURL:", "lnurl:").parse().unwrap();
            let told = (to.to.to_string(), to.fraction.0.ppm());
            assert_eq!(told, ("lnurl:https://pay.example/a".to_owned(), ppm));
        }
        let all: To = "wallet:a".parse().unwrap();
        assert_eq!(all.fraction.0.ppm(), 1_000_000);
        for wrong in
            ["savings", "wallet:", "wallet:=1", "wallet:a=", "wallet:a=2", "ln:a=0.5", "lnurl:"]
        {
            assert!(wrong.parse::<To>().is_err(), "{wrong}");
        }
    }
}
