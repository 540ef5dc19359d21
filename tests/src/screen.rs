//! What a scripted customer reads off the kiosk's screen: its heading, its buttons, its QR code.

use anyhow::{Context as _, Result, bail};
use rqrr::{Grid, SimpleGrid};

/// Light modules around a code (ISO/IEC 18004).
const QUIET: usize = 4;

/// The text of the QR code that a page shows as SVG, as a wallet's camera gets it: module by
/// module, with the code's own error correction.
///
/// # Errors
/// When the page shows no code, or nobody could read it.
pub fn qr_text(html: &str) -> Result<String> {
    let svg = html.split_once("<svg").and_then(|(_, rest)| rest.split_once("</svg>"));
    let (svg, _) = svg.context("the page shows no QR code")?;
    let width: usize = between(svg, "width=\"", "\"").context("no width")?.parse()?;
    let path = between(svg, " d=\"", "\"").context("the code has no modules")?;
    let mut dark = Vec::new();
    let mut unit = 0;
    for module in path.split('M').skip(1) {
        let (x, rest) = module.split_once(' ').context("a module has no place")?;
        let (y, rest) = rest.split_once('h').context("a module has no width")?;
        let (size, _) = rest.split_once('v').context("a module has no height")?;
        unit = size.parse()?;
        dark.push((x.parse::<usize>()?, y.parse::<usize>()?));
    }
    if unit == 0 {
        bail!("the code is empty");
    }
    let modules = width.checked_div(unit).and_then(|all| all.checked_sub(2 * QUIET));
    let modules = modules.context("the code is smaller than its own border")?;
    let is_dark = |x: usize, y: usize| dark.contains(&((x + QUIET) * unit, (y + QUIET) * unit));
    let (_, text) = Grid::new(SimpleGrid::from_func(modules, is_dark)).decode()?;
    Ok(text)
}

/// The screen's heading in words.
#[must_use]
pub fn heading(html: &str) -> String {
    let inner = between(html, "<h1>", "</h1>").unwrap_or_default();
    let mut words = String::new();
    let mut tag = false;
    for character in inner.chars() {
        match character {
            '<' => tag = true,
            '>' => tag = false,
            _ if !tag => words.push(character),
            _ => {}
        }
    }
    words
}

/// The amounts that the screen sells, in minor units.
#[must_use]
pub fn amounts(html: &str) -> Vec<i64> {
    let after = html.split("&quot;fiat_minor&quot;:").skip(1);
    let digits = after.map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
    digits.flatten().filter_map(|digits| digits.parse().ok()).collect()
}

/// The customer's claim code, where the screen shows one.
#[must_use]
pub fn claim_code(html: &str) -> Option<&str> {
    between(html.split_once("Your claim code.")?.1, "<code>", "</code>")
}

/// What stands between two marks.
#[must_use]
pub fn between<'a>(text: &'a str, open: &str, close: &str) -> Option<&'a str> {
    Some(text.split_once(open)?.1.split_once(close)?.0)
}

#[cfg(test)]
mod tests {
    use qrcode::{EcLevel, QrCode, render::svg};

    use super::*;

    /// Loss prevented: an end-to-end test that is happy with a code which no wallet could read.
    #[test]
    fn a_code_on_the_screen_is_read_and_a_damaged_one_is_not() {
        let text = format!("LNURL1{}", "DP68GURN8GHJ7".repeat(12));
        let code = QrCode::with_error_correction_level(&text, EcLevel::M).unwrap();
        let image = code.render::<svg::Color>().min_dimensions(320, 320).build();
        let page = format!("<h1>Claim <b>1 sats</b></h1><div class=\"qr\">{image}</div>");
        assert_eq!(qr_text(&page).unwrap(), text);
        assert_eq!(heading(&page), "Claim 1 sats");
        let at = page.find(" d=\"").unwrap();
        let cut = format!("{}\"/></svg>", &page[..at + 1_000]);
        assert!(qr_text(&cut).is_err());
        assert!(qr_text("<h1>One moment</h1>").is_err());
        let page = r#"<button data-action="{&quot;action&quot;:&quot;start_cash_out&quot;,&quot;fiat_minor&quot;:2000}">"#;
        assert_eq!(amounts(&page.repeat(2)), [2_000, 2_000]);
        let page = "<code>0</code><p>Your claim code. Photograph it</p><code>ab12</code>";
        assert_eq!((claim_code(page), claim_code("<code>0</code>")), (Some("ab12"), None));
    }
}
