//! The page's arithmetic, run by a JavaScript engine.

use bitspire_shared::money::FeePpm;
use proptest::prelude::*;
use rquickjs::{Context, Ctx, Function, Module, Runtime};

use crate::http::Fraction;

const EXACT: &str = include_str!("../exact.js");
/// How an engine says that a function threw.
const THREW: &str = "threw: ";

/// The functions of `exact.js`, each called with texts.
struct Engine(Context);

impl Engine {
    fn new() -> Self {
        Self(Context::full(&Runtime::new().unwrap()).unwrap())
    }

    /// What a JavaScript function of the module and texts answers, as a text.
    fn ask(&self, expression: &str, texts: &[&str]) -> String {
        let work = |js: Ctx<'_>| -> rquickjs::Result<String> {
            let module = Module::declare(js.clone(), "exact", EXACT)?;
            let (module, loaded) = module.eval()?;
            loaded.finish::<()>()?;
            js.globals().set("exact", module.namespace()?)?;
            let code = format!(
                "(texts => {{ try {{ return String(({expression})(...texts)); }} \
                 catch (error) {{ return '{THREW}' + error.message; }} }})"
            );
            js.eval::<Function<'_>, _>(code)?.call((texts.to_vec(),))
        };
        self.0.with(work).unwrap()
    }
}

#[track_caller]
fn table(expression: &str, rows: &[(&str, &str)]) {
    let engine = Engine::new();
    for (typed, expected) in rows {
        assert_eq!(engine.ask(expression, &[typed]), *expected, "{expression} of {typed:?}");
    }
}

#[track_caller]
fn refused(expression: &str, rows: &[&str]) {
    let engine = Engine::new();
    for typed in rows {
        let got = engine.ask(expression, &[typed]);
        assert!(got.starts_with("threw: expected"), "{expression} of {typed:?}: {got}");
    }
}

/// Loss prevented: a fee that is set to another one than was typed.
#[test]
fn a_typed_percentage_is_the_fraction_of_the_same_digits() {
    let rows = [
        ("5", "0.05"),
        ("7.77", "0.0777"),
        ("7,77", "0.0777"),
        (" 0.0001 ", "0.000001"),
        ("0", "0"),
        ("0.0", "0"),
        ("-0", "0"),
        ("100", "1"),
        ("007.50", "0.075"),
    ];
    table("exact.fraction", &rows);
    let no = ["", " ", "5%", "100.0001", "-1", "0.00001", "1e3", "1.2.3", ".5", "5.", "NaN", "0x5"];
    refused("exact.fraction", &no);
}

/// Loss prevented: an amount beyond 2^53, or a fee, that the page shows as another one.
#[test]
fn what_the_api_says_is_shown_with_all_its_digits() {
    let blank = '\u{202f}';
    let all = "2\u{202f}100\u{202f}000\u{202f}000\u{202f}000\u{202f}001 sat".to_owned();
    table("exact.sats", &[("2100000000000001", &all), ("999", "999 sat"), ("0", "0 sat")]);
    let thousand = format!("1{blank}000.001 sat");
    table("exact.msats", &[("1000001", &thousand), ("1", "0.001 sat"), ("0", "0 sat")]);
    let percents =
        [("0.0777", "7.77"), ("1e-6", "0.0001"), ("1E-6", "0.0001"), ("0", "0"), ("1.0", "100")];
    let percents = percents.map(|(of, shown)| (of, format!("{shown}{blank}%")));
    let percents: Vec<_> = percents.iter().map(|(of, shown)| (*of, shown.as_str())).collect();
    table("exact.percent", &percents);
    let read = "text => { const v = exact.read(text); return exact.write(v); }";
    table(
        read,
        &[
            (
                r#"{"a":9007199254740993,"b":0.07769999999999999}"#,
                r#"{"a":"9007199254740993","b":"0.07769999999999999"}"#,
            ),
            (
                r#"{"say":"1 \"2\" 3\\","n":[1,-2.5e+3]}"#,
                r#"{"say":"1 \"2\" 3\\","n":["1","-2.5e+3"]}"#,
            ),
            (r#"[true,null,{},""]"#, r#"[true,null,{},""]"#),
        ],
    );
    let long = format!(r#"{{"path":"{}"}}"#, "M0 0h1v1h-1z".repeat(20_000));
    table(read, &[(&long, &long)]);
}

/// Loss prevented: a refill that is written down with other digits than were typed.
#[test]
fn typed_whole_numbers_travel_with_all_their_digits() {
    let body =
        "text => exact.write({ bays: [{ bay: '1', delta: -exact.given(text), set: undefined }] })";
    let rows = [
        ("9007199254740993", r#"{"bays":[{"bay":"1","delta":-9007199254740993}]}"#),
        ("1 200", r#"{"bays":[{"bay":"1","delta":-1200}]}"#),
        ("1\u{202f}200", r#"{"bays":[{"bay":"1","delta":-1200}]}"#),
    ];
    table(body, &rows);
    table("exact.whole", &[("", "null"), (" ", "null"), ("007", "7")]);
    refused("exact.whole", &["1.5", "-1", "1e3", "0x10", "twenty"]);
    refused("exact.given", &["", "1.5"]);
    let engine = Engine::new();
    assert_eq!(engine.ask("exact.times", &["9007199254740993", "20"]), "180143985094819860");
}

proptest! {
    /// Loss prevented: as above, for every fee: what the page shows reads back as it is, and the
    /// sum that a customer pays is the sum.
    #[test]
    fn every_fee_survives_the_page(one in 0..=1_000_000_u32, other in 0..=1_000_000_u32) {
        let engine = Engine::new();
        let text = |ppm| serde_json::to_string(&Fraction(FeePpm::new(ppm).unwrap())).unwrap();
        let round = "text => exact.fraction(exact.shift(text, 2))";
        let back = engine.ask(round, &[&text(one)]);
        prop_assert_eq!(back.parse::<Fraction>().unwrap().0.ppm(), one);
        let sum = engine.ask("exact.sum", &[&text(one), &text(other)]);
        let ppm = rust_decimal::Decimal::from_str_exact(&sum).unwrap() * rust_decimal::Decimal::from(1_000_000);
        prop_assert_eq!(ppm, rust_decimal::Decimal::from(one + other));
    }
}
