//! A screen as plain text, for people who were not there: replays, evidence.
//!
//! Promise: it is made of the page that the kiosk draws, by [`render`], and of nothing else.

use super::render;
use crate::screen::MachineScreen;

/// The screen's words, a line for each heading, paragraph and button; a QR code is named.
#[must_use]
pub fn text(screen: &MachineScreen) -> String {
    words(&render(screen).into_string())
}

fn words(html: &str) -> String {
    let mut text = String::new();
    let mut rest = html;
    let mut drawing = false;
    while let Some((before, after)) = rest.split_once('<') {
        if !drawing {
            text.push_str(before);
        }
        let (tag, after) = after.split_once('>').unwrap_or((after, ""));
        let name = tag.split([' ', '/']).find(|part| !part.is_empty()).unwrap_or_default();
        let closes = tag.starts_with('/');
        match name {
            "svg" => {
                drawing = !closes;
                text.push_str(if closes { "" } else { "(QR code)" });
            }
            _ if drawing => {}
            "button" => text.push_str(if closes { "]\n" } else { "[" }),
            "dt" | "dd" if closes => text.push_str(if name == "dt" { ": " } else { "\n" }),
            "h1" | "p" | "div" | "dl" if closes => text.push('\n'),
            _ => {}
        }
        rest = after;
    }
    text.push_str(rest);
    let plain = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"");
    let plain = plain.replace("&amp;", "&");
    let lines = plain.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loss prevented: evidence that shows another screen than the customer saw, or code.
    #[test]
    fn a_page_becomes_its_words() {
        let html = "<h1>Pay 5 &amp; 6</h1><div class=\"qr\" role=\"img\"><svg a=\"1\"><path d=\"M0\"/>\
            </svg></div><dl><dt>Fee</dt><dd>1 sats</dd></dl><p>a <b>b</b></p>\
            <div><button data-action=\"{&quot;x&quot;}\">Back</button><button>On</button></div>";
        assert_eq!(words(html), "Pay 5 & 6\n(QR code)\nFee: 1 sats\na b\n[Back]\n[On]");
        let reasons = vec!["the <journal>".to_owned()];
        let shown = text(&MachineScreen::OutOfService { reasons });
        assert_eq!(shown, "Out of service\nthe <journal>\n[Service]");
    }
}
