//! A customer's Lightning wallet: reads an LNURL (LUD-01), asks what it is worth (LUD-03), names an
//! invoice of its own node.

use anyhow::{Context as _, Result, bail};
use bech32::primitives::decode::CheckedHrpstring;
use bitspire_operator::wallet::simulated::SimulatedNode;
use bitspire_operator::wallet::{InvoiceRequest, Wallet as _};
use bitspire_shared::money::Sats;
use bitspire_shell::clock::Clock;
use nostr::secp256k1::SecretKey;
use serde_json::{Value, json};

use crate::http::Client;

/// The wallet.
pub struct CustomerWallet {
    node: SimulatedNode,
    client: Client,
}

/// A withdraw that the wallet has accepted; it is paid when the service has paid it.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// What the service will pay.
    pub sats: u64,
    /// The invoice that it will pay.
    pub bolt11: String,
}

impl CustomerWallet {
    /// A wallet on a node of its own, on regtest.
    ///
    /// # Errors
    /// When the node cannot be made.
    pub fn new() -> Result<Self> {
        let key = SecretKey::from_slice(&[0x43; 32])?;
        let node = SimulatedNode::open(None, key, Sats::ZERO, Clock::system())?;
        Ok(Self { node, client: Client::default() })
    }

    /// Scans the code and accepts what it offers.
    ///
    /// # Errors
    /// When the code is none, or the service refuses.
    pub fn scan(&self, lnurl: &str) -> Result<Accepted> {
        self.scan_with(lnurl, &mut None)
    }

    /// As [`scan`](Self::scan), with the invoice that was named before, if one was: a wallet that got
    /// no answer asks again with the same.
    ///
    /// # Errors
    /// When the code is none, or the service refuses.
    pub fn scan_with(&self, lnurl: &str, named: &mut Option<String>) -> Result<Accepted> {
        let (offer, sats) = self.offered(lnurl)?;
        let bolt11 = match named {
            Some(bolt11) => bolt11.clone(),
            None => named.insert(self.invoice(sats)?).clone(),
        };
        let (callback, k1) = (offer["callback"].as_str(), offer["k1"].as_str());
        let (callback, k1) = (callback.context("no callback")?, k1.context("no k1")?);
        self.ask(&format!("{callback}?k1={k1}&pr={bolt11}"))?;
        Ok(Accepted { sats, bolt11 })
    }

    /// What the code is worth, in sats; nothing is asked for.
    ///
    /// # Errors
    /// When the code is none, or the service refuses.
    pub fn offer(&self, lnurl: &str) -> Result<u64> {
        self.offered(lnurl).map(|(_, sats)| sats)
    }

    fn offered(&self, lnurl: &str) -> Result<(Value, u64)> {
        let offer = self.ask(&decode(lnurl)?)?;
        if offer["tag"] != "withdrawRequest" {
            bail!("expected a withdrawRequest, got {offer}");
        }
        let msat = offer["maxWithdrawable"].as_u64().context("no amount")?;
        if offer["minWithdrawable"].as_u64() != Some(msat) {
            bail!("expected one amount, got {offer}");
        }
        Ok((offer, msat / 1_000))
    }

    fn ask(&self, url: &str) -> Result<Value> {
        let answer = self.client.get(url, &[])?;
        if answer["status"] == "ERROR" {
            bail!("the service refuses: {}", answer["reason"]);
        }
        Ok(answer)
    }

    /// An invoice of the wallet's own.
    ///
    /// # Errors
    /// When its node does not make one.
    pub fn invoice(&self, sats: u64) -> Result<String> {
        let request = InvoiceRequest {
            amount: Sats(sats),
            memo: "cash".to_owned(),
            expiry_s: 3_600,
            extra: json!({}),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        Ok(runtime.block_on(self.node.wallet("customer").make_invoice(request))?.bolt11)
    }
}

/// The address inside an LNURL, in either case.
///
/// # Errors
/// When the text is no LNURL.
pub fn decode(lnurl: &str) -> Result<String> {
    let parsed = CheckedHrpstring::new::<bech32::Bech32>(lnurl)?;
    if !parsed.hrp().as_str().eq_ignore_ascii_case("lnurl") {
        bail!("expected lnurl1..., got {}1...", parsed.hrp());
    }
    Ok(String::from_utf8(parsed.byte_iter().collect())?)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::TcpListener;

    use bech32::{Bech32, Hrp};

    use super::*;

    fn lnurl(url: &str) -> String {
        bech32::encode_upper::<Bech32>(Hrp::parse("lnurl").unwrap(), url.as_bytes()).unwrap()
    }

    /// Answers each request with the next body; gives the paths that were asked for.
    fn serve(bodies: Vec<Value>) -> (String, std::thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let serving = std::thread::spawn(move || {
            let answer = |body: Value| {
                let (mut stream, _) = listener.accept().unwrap();
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let first = lines.next().unwrap().unwrap();
                while !lines.next().unwrap().unwrap().is_empty() {}
                let body = body.to_string();
                let length = body.len();
                write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}")
                    .unwrap();
                first.split(' ').nth(1).unwrap().to_owned()
            };
            bodies.into_iter().map(answer).collect()
        });
        (base, serving)
    }

    /// Loss prevented: a demo whose "wallet" takes what no real wallet would.
    #[test]
    fn it_speaks_lud_03_and_refuses_what_is_none() {
        assert!(decode("LNURL1QQQ").is_err());
        let error = json!({"status": "ERROR", "reason": "gone"});
        let (base, serving) = serve(vec![error]);
        let refused = CustomerWallet::new().unwrap().scan(&lnurl(&base)).unwrap_err();
        assert!(refused.to_string().contains("gone"), "{refused}");
        serving.join().unwrap();

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let callback = format!("http://{}/cb", listener.local_addr().unwrap());
        drop(listener);
        let two = json!({"tag": "withdrawRequest", "callback": callback, "k1": "ab",
                         "minWithdrawable": 1_000, "maxWithdrawable": 2_000});
        let (base, serving) = serve(vec![two]);
        let refused = CustomerWallet::new().unwrap().scan(&lnurl(&base)).unwrap_err();
        assert!(refused.to_string().contains("one amount"), "{refused}");
        serving.join().unwrap();
    }

    /// Loss prevented: a wallet that names an invoice of another amount, which nobody ever pays.
    #[test]
    fn it_names_an_invoice_of_exactly_the_amount() {
        let wallet = CustomerWallet::new().unwrap();
        let bolt11 = wallet.invoice(75_795).unwrap();
        let invoice: lightning_invoice::Bolt11Invoice = bolt11.parse().unwrap();
        assert_eq!(invoice.amount_milli_satoshis(), Some(75_795_000));
    }
}
