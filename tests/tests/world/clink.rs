//! A customer whose wallet speaks CLINK: the reference SDK from npm, as it is, on the second code of the
//! machine's screen.

use std::fs;
use std::path::Path;
use std::process::Command;

use bitspire_tests::customer::Customer;
use bitspire_tests::sale::{feeds, orders, pays, settlements, steps_up};
use bitspire_tests::screen::qr_text;
use bitspire_tests::shop;
use bitspire_tests::wait::{PATIENCE, wait_for};
use bitspire_tests::wallet::CustomerWallet;
use bitspire_tests::world::World;
use serde_json::{Value, json};

use crate::installed::installed;

/// The codes on the screen: the one that every wallet reads, and the one for CLINK.
fn codes(customer: &Customer, heading: &str) -> (String, String) {
    let (_, html) = customer.sees(&[heading], PATIENCE).unwrap();
    let (first, second) = html.split_once("</svg>").unwrap();
    (qr_text(&format!("{first}</svg>")).unwrap(), qr_text(second).unwrap())
}

/// What the SDK is told.
fn sdk(folder: &Path, arguments: &[&str]) -> Value {
    let mut node = Command::new("node");
    let done = node.arg("clink.mjs").args(arguments).current_dir(folder).output().unwrap();
    let (out, error) =
        (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{out}{error}");
    serde_json::from_str(out.lines().last().unwrap()).unwrap()
}

/// Loss prevented: a second code on the screen that no wallet can use, or by which somebody is paid
/// twice; a wallet that does not authenticate and is not heard at our relay.
#[test]
fn a_wallet_of_the_reference_sdk_buys_and_sells() {
    let folder = installed();
    let program = Path::new(env!("CARGO_BIN_EXE_bitspire-world"));
    let mut world = World::new(program, None).unwrap();
    let path = world.folder().join("operator.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text + "\n[clink]\nenabled = true\n").unwrap();
    shop::open(&mut world, &mut |step| eprintln!("{step}")).unwrap();
    let customer = world.customer().unwrap();

    steps_up(&customer).unwrap();
    let bolt11 = orders(&customer, 2_000).unwrap();
    let (first, noffer) = codes(&customer, "Pay ");
    assert_eq!(first.to_lowercase(), bolt11);
    assert_eq!(sdk(&folder, &[&noffer]), json!({"bolt11": bolt11}));
    pays(&world, &bolt11).unwrap();
    customer.sees(&["Take your notes"], PATIENCE).unwrap();
    world.act(&world.dispenser, &json!({"action": "take"})).unwrap();
    assert_eq!(sdk(&folder, &[&noffer])["code"], 1, "paid once");

    steps_up(&customer).unwrap();
    customer.touches(&json!({"action": "start_cash_in"})).unwrap();
    customer.sees(&["Feed your notes"], PATIENCE).unwrap();
    feeds(&world, &customer, 20, 2_000).unwrap();
    customer.touches(&json!({"action": "finish"})).unwrap();
    let (lnurl, ndebit) = codes(&customer, "Claim ");
    let wallet = CustomerWallet::new().unwrap();
    let offered = wallet.offer(&lnurl).unwrap();
    let own = wallet.invoice(offered).unwrap();
    let other = wallet.invoice(offered).unwrap();
    let more = sdk(&folder, &[&ndebit, &wallet.invoice(offered + 1).unwrap()]);
    assert_eq!((&more["res"], &more["code"]), (&json!("GFY"), &json!(5)), "{more}");
    assert_eq!(sdk(&folder, &[&ndebit, &own]), json!({"res": "ok"}));
    customer.sees(&["Paid"], PATIENCE).unwrap();
    assert_eq!(sdk(&folder, &[&ndebit, &own]), json!({"res": "ok"}), "asked again");
    let denied = sdk(&folder, &[&ndebit, &other]);
    assert_eq!((&denied["res"], &denied["code"]), (&json!("GFY"), &json!(1)), "{denied}");
    assert!(wallet.scan(&lnurl).is_err(), "paid by the other way");

    wait_for("both settlements, and no third", PATIENCE, || {
        let all = settlements(&world).map_err(|error| format!("{error:#}"))?;
        let good = all.iter().filter(|row| row["status"] == "accepted").count();
        if (all.len(), good) == (2, 2) { Ok(()) } else { Err(format!("{all:?}")) }
    })
    .unwrap();
    world.close();
}
