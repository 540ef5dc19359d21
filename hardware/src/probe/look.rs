//! The questions of each protocol.
//!
//! Promise: a knock is the question for the state, which every device of its kind answers; the rest
//! is asked only of who answered it. None of them moves a note or confirms one.

use std::iter;
use std::time::Duration;

use bitspire_shared::ids::BayId;

use super::talk::Talk;
use super::{ANSWER, Forbids, Found, ProbeError, Protocol};
use crate::dispenser::BayState;
use crate::frame::f56::SLOTS;
use crate::frame::puloon::{Frame as PuloonFrame, Side, Token, lcdm1000, lcdm4000};
use crate::frame::{ccnet, ebds, escpos, f56, id003, puloon, ssp};

/// Entries of an EBDS note table, at most.
const EBDS_NOTES: u8 = 128;

fn id003_frames(mut bytes: &[u8]) -> impl Iterator<Item = id003::Frame> {
    let mut decoder = id003::Decoder::default();
    iter::from_fn(move || decoder.push(&mut bytes))
}

fn ccnet_frames(mut bytes: &[u8], address: u8) -> impl Iterator<Item = ccnet::Frame> {
    let mut decoder = ccnet::Decoder::default();
    let frames = iter::from_fn(move || decoder.push(&mut bytes));
    frames.filter(move |frame| frame.address() == address)
}

fn ssp_frames(mut bytes: &[u8]) -> impl Iterator<Item = ssp::Frame> {
    let mut decoder = ssp::Decoder::default();
    iter::from_fn(move || decoder.push(&mut bytes))
}

/// Replies only: a line that echoes gives requests back.
fn ebds_frames(mut bytes: &[u8]) -> impl Iterator<Item = ebds::Frame> {
    let mut decoder = ebds::Decoder::default();
    let frames = iter::from_fn(move || decoder.push(&mut bytes));
    frames.filter(|frame| matches!(ebds::Request::parse(frame), ebds::Request::Unknown { .. }))
}

fn f56_tokens(mut bytes: &[u8]) -> impl Iterator<Item = f56::Token> {
    let mut decoder = f56::Decoder::default();
    iter::from_fn(move || decoder.push(&mut bytes))
}

fn puloon_frames(mut bytes: &[u8]) -> impl Iterator<Item = PuloonFrame> {
    let mut decoder = puloon::Decoder::new(Side::Device);
    iter::from_fn(move || decoder.push(&mut bytes)).filter_map(|token| match token {
        Token::Frame(frame) => Some(frame),
        _ => None,
    })
}

/// Whether it answers, and what it says of its state.
pub(super) fn knock(
    talk: &mut Talk,
    protocol: Protocol,
    patience: Duration,
) -> Result<Option<Found>, ProbeError> {
    let state = |words: String| Found { state: vec![words], ..Found::default() };
    match protocol {
        Protocol::Id003 => {
            let question = id003::Request::StatusRequest.frame();
            talk.ask(&question.to_bytes(), patience, |bytes| {
                // IDLING has the bytes of the question: an echo is told by the next one
                let frame = id003_frames(bytes).next()?;
                Some(state(id003::Reply::parse(&frame).to_string()))
            })
        }
        Protocol::Ccnet => ccnet_state(talk, ccnet::VALIDATOR, patience),
        Protocol::CcnetUnit => ccnet_state(talk, ccnet::BILL_TO_BILL, patience),
        Protocol::Ssp => {
            // it only begins the count of frames anew
            let question = ssp::Request::Sync.frame(true, ssp::VALIDATOR);
            talk.ask(&question.to_bytes(), patience, |bytes| {
                let frame = ssp_frames(bytes).find(|frame| *frame != question)?;
                Some(state(ssp::Reply::parse(frame.data()).to_string()))
            })
        }
        Protocol::Ebds => {
            ebds_status(talk, patience).map(|status| status.map(|status| state(status.to_string())))
        }
        Protocol::F56 => {
            let reply = f56_asks(talk, &f56::Request::Status, patience)?;
            Ok(reply.map(|reply| f56_state(&reply)))
        }
        Protocol::Lcdm4000 => {
            let frame = puloon_asks(talk, &lcdm4000::Request::Status.frame(), patience)?;
            Ok(frame.and_then(|frame| match lcdm4000::Reply::parse(&frame) {
                lcdm4000::Reply::Status { error, sensors, bays } => {
                    let mut found = state(error.to_string());
                    found.forbid(sensors & lcdm4000::AT_EXIT != 0, Forbids::NotesAtExit);
                    // it has no sensor for its tray to tell of: it refuses by itself without one
                    found.state.extend(
                        (1..)
                            .zip(bays)
                            .filter(|(_, bay)| bay.near_end())
                            .map(|(bay, _): (u8, _)| format!("cassette {bay} is nearly empty")),
                    );
                    found.bays = present(bays.map(|bay| bay.present));
                    Some(found)
                }
                _ => None,
            }))
        }
        Protocol::Lcdm1000 => {
            let frame = puloon_asks(talk, &lcdm1000::Request::Status.frame(), patience)?;
            Ok(frame.and_then(|frame| match lcdm1000::Reply::parse(&frame) {
                lcdm1000::Reply::Status { error, sensors } => {
                    let mut found = state(error.to_string());
                    found.forbid(sensors.at_exit(), Forbids::NotesAtExit);
                    found.forbid(sensors.no_reject_tray(), Forbids::NoRejectTray);
                    found.bays = present(sensors.missing().map(|missing| !missing));
                    Some(found)
                }
                _ => None,
            }))
        }
        Protocol::EscPos => {
            let mut found = Found::default();
            for ask in escpos::Ask::ALL {
                let status = talk.ask(&ask.bytes(), patience, |bytes| {
                    bytes
                        .iter()
                        .find(|byte| {
                            matches!(escpos::Status::of(**byte), escpos::Status::RealTime(_))
                        })
                        .copied()
                })?;
                let Some(byte) = status else { return Ok(None) };
                let troubles = ask.troubles(byte);
                found.state.extend(troubles.into_iter().map(|one| one.words().to_owned()));
            }
            Ok(Some(found))
        }
    }
}

/// All else that it says of itself.
pub(super) fn look(
    talk: &mut Talk,
    protocol: Protocol,
    mut found: Found,
) -> Result<Found, ProbeError> {
    match protocol {
        Protocol::Id003 => {
            let question = id003::Request::Version.frame().to_bytes();
            let version = talk.ask(&question, ANSWER, |bytes| {
                id003_frames(bytes).find_map(|frame| match id003::Reply::parse(&frame) {
                    id003::Reply::Version(text) => Some(printable(text)),
                    _ => None,
                })
            })?;
            // a version without a word is our own question
            if version.as_deref() == Some("") {
                return Err(ProbeError::Echo);
            }
            found.identity = version;
            let question = id003::Request::CurrencyAssign.frame().to_bytes();
            let notes = talk.ask(&question, ANSWER, |bytes| {
                id003_frames(bytes).find_map(|frame| match id003::Reply::parse(&frame) {
                    id003::Reply::CurrencyAssign(table) => {
                        Some(table.slots().filter_map(|slot| slot.note()).collect())
                    }
                    _ => None,
                })
            })?;
            found.notes = notes.unwrap_or_default();
            found.state.extend(id003_boxes(talk)?);
        }
        Protocol::Ccnet => ccnet_look(talk, ccnet::VALIDATOR, &mut found)?,
        Protocol::CcnetUnit => ccnet_look(talk, ccnet::BILL_TO_BILL, &mut found)?,
        Protocol::Ssp => ssp_look(talk, &mut found)?,
        Protocol::Ebds => ebds_look(talk, &mut found)?,
        Protocol::Lcdm1000 => {
            let rom = puloon_asks(talk, &lcdm1000::Request::RomVersion.frame(), ANSWER)?;
            if let Some(lcdm1000::Reply::Rom { version, checksum }) =
                rom.map(|frame| lcdm1000::Reply::parse(&frame))
            {
                found.identity = Some(format!("ROM {}, {checksum:04X}", printable(&version)));
            }
        }
        // their protocols have no such question
        Protocol::F56 | Protocol::Lcdm4000 | Protocol::EscPos => {}
    }
    Ok(found)
}

/// What a recycler's boxes hold; a validator without them refuses the question.
fn id003_boxes(talk: &mut Talk) -> Result<Option<String>, ProbeError> {
    use id003::recycler::{COUNTS, Extension};
    let question = Extension::Question(COUNTS).frame();
    let boxes = talk.ask(&question.to_bytes(), ANSWER, |bytes| {
        let mut frames = id003_frames(bytes).filter(|frame| *frame != question);
        frames.next().map(|frame| match Extension::parse(&frame) {
            Some(Extension::Counts([one, two])) => Some([one, two]),
            _ => None,
        })
    })?;
    let words = |[one, two]: [u16; 2]| format!("boxes: 1 holds {one} notes, 2 holds {two}");
    Ok(boxes.flatten().map(words))
}

/// Only what is no state is confirmed: the confirmation of a state could be that of a credit.
fn ccnet_look(talk: &mut Talk, address: u8, found: &mut Found) -> Result<(), ProbeError> {
    let bytes = |request: ccnet::Request<'_>| request.frame().with_address(address).to_bytes();
    let ack = bytes(ccnet::Request::Ack);
    let question = bytes(ccnet::Request::Identification);
    found.identity = talk.ask(&question, ANSWER, |bytes| {
        ccnet_frames(bytes, address).find_map(|frame| match ccnet::Reply::parse(&frame) {
            ccnet::Reply::Identity(identity) => Some(identity.text()),
            _ => None,
        })
    })?;
    if found.identity.is_some() {
        talk.tell(&ack)?;
    }
    let question = bytes(ccnet::Request::GetBillTable);
    let notes = talk.ask(&question, ANSWER, |bytes| {
        ccnet_frames(bytes, address).find_map(|frame| match ccnet::Reply::parse(&frame) {
            ccnet::Reply::BillTable(table) => {
                Some(table.slots().filter_map(|slot| slot.note()).collect())
            }
            _ => None,
        })
    })?;
    if let Some(notes) = notes {
        found.notes = notes;
        talk.tell(&ack)?;
    }
    if address == ccnet::BILL_TO_BILL {
        let question = bytes(ccnet::Request::Unit(ccnet::unit::Command::CassetteStatus));
        let cassettes = talk.ask(&question, ANSWER, |bytes| {
            ccnet_frames(bytes, address).find_map(|frame| {
                ccnet::unit::Cassettes::parse(frame.content())
                    .map(|cassettes| cassettes.to_string())
            })
        })?;
        if let Some(cassettes) = cassettes {
            found.state.push(cassettes);
            talk.tell(&ack)?;
        }
    }
    Ok(())
}

fn ccnet_state(
    talk: &mut Talk,
    address: u8,
    patience: Duration,
) -> Result<Option<Found>, ProbeError> {
    let question = ccnet::Request::Poll.frame().with_address(address);
    talk.ask(&question.to_bytes(), patience, |bytes| {
        let frame = ccnet_frames(bytes, address).find(|frame| *frame != question)?;
        let state = vec![ccnet::Reply::parse(&frame).to_string()];
        Some(Found { state, ..Found::default() })
    })
}

/// What SETUP REQUEST tells: of protocol version 6 or above, which the driver wants too.
fn ssp_look(talk: &mut Talk, found: &mut Found) -> Result<(), ProbeError> {
    let question = ssp::Request::SetupRequest.frame(false, ssp::VALIDATOR);
    let told = talk.ask(&question.to_bytes(), ANSWER, |bytes| {
        let frame = ssp_frames(bytes).find(|frame| *frame != question)?;
        let reply = ssp::Reply::parse(frame.data());
        let setup = ssp::Setup::parse(reply.rest)?;
        let (unit, firmware, protocol) = (setup.unit, setup.firmware, setup.protocol);
        let identity = format!(
            "unit {unit:02X}, firmware {}, protocol version {protocol}",
            printable(&firmware)
        );
        let notes = setup.channels().filter_map(|channel| channel.note.note());
        Some((identity, notes.collect()))
    })?;
    if let Some((identity, notes)) = told {
        (found.identity, found.notes) = (Some(identity), notes);
    }
    Ok(())
}

/// A closed inlet, and nothing of what units are set to otherwise.
const fn ebds_closed() -> ebds::Omnibus {
    ebds::Omnibus {
        notes: 0,
        interrupt: false,
        high_security: false,
        orientation: 3,
        escrow: true,
        stack: false,
        give_back: false,
        no_push: false,
        barcode: false,
        policy: ebds::PowerUpPolicy::B,
        extended: true,
        coupon: false,
    }
}

fn ebds_status(talk: &mut Talk, patience: Duration) -> Result<Option<ebds::Status>, ProbeError> {
    // always this toggle: the answer before is said again, and nothing is confirmed
    let question = ebds::Request::Omnibus(ebds_closed()).frame(false);
    talk.ask(&question.to_bytes(), patience, |bytes| {
        ebds_frames(bytes).find_map(|frame| ebds::Reply::parse(&frame).status())
    })
}

fn ebds_look(talk: &mut Talk, found: &mut Found) -> Result<(), ProbeError> {
    use ebds::bits;
    let Some(status) = ebds_status(talk, ANSWER)? else { return Ok(()) };
    let model = format!("model {:02X} revision {:02X}", status.model, status.revision);
    // another toggle confirms what was said before it
    if status.is(!bits::IDLING) || status.exception & bits::POWER_UP != 0 {
        found.identity = Some(model);
        found.state.push(
            "more is asked only of a unit that is past its start and has no note to speak of"
                .to_owned(),
        );
        return Ok(());
    }
    let mut toggle = false;
    let mut texts = Vec::new();
    for query in [ebds::Query::ApplicationPart, ebds::Query::VariantName, ebds::Query::Serial] {
        toggle = !toggle;
        let question = ebds::Request::Query(query).frame(toggle).to_bytes();
        let text = talk.ask(&question, ANSWER, |bytes| {
            ebds_frames(bytes).find_map(|frame| match ebds::Reply::parse(&frame) {
                ebds::Reply::Answer(text) => Some(printable(text)),
                _ => None,
            })
        })?;
        texts.extend(text.filter(|text| !text.is_empty()));
    }
    texts.push(model);
    found.identity = Some(texts.join(", "));
    for index in 1..=EBDS_NOTES {
        toggle = !toggle;
        let question = ebds::Request::NoteSpecification(ebds_closed(), index).frame(toggle);
        let report = talk.ask(&question.to_bytes(), ANSWER, |bytes| {
            ebds_frames(bytes).find_map(|frame| match ebds::Reply::parse(&frame) {
                ebds::Reply::Note(_, report) => Some(Some(report)),
                other => other.status().map(|_| None),
            })
        })?;
        match report.flatten() {
            Some(report) if !report.is_blank() => found.notes.extend(report.note()),
            Some(_) => return Ok(()),
            None if index > 1 => return Ok(()),
            None => break,
        }
    }
    if found.notes.is_empty() {
        let question = ebds::Request::ValueTable(ebds_closed()).frame(!toggle);
        let notes = talk.ask(&question.to_bytes(), ANSWER, |bytes| {
            ebds_frames(bytes).find_map(|frame| match ebds::Reply::parse(&frame) {
                ebds::Reply::ValueTable(_, table) => {
                    Some(table.notes().map(|(_, note)| note).collect())
                }
                _ => None,
            })
        })?;
        found.notes = notes.unwrap_or_default();
    }
    Ok(())
}

fn f56_asks(
    talk: &mut Talk,
    request: &f56::Request,
    patience: Duration,
) -> Result<Option<f56::Reply>, ProbeError> {
    let says = |token: f56::Token| {
        move |bytes: &[u8]| f56_tokens(bytes).any(|one| one == token).then_some(())
    };
    if talk.ask(&f56::ENQ, patience, says(f56::Token::Ack))?.is_none() {
        return Ok(None);
    }
    // the frame is acknowledged, then the device asks to speak
    let frame = f56::encode(&request.payload());
    if talk.ask(&frame, ANSWER, says(f56::Token::Enq))?.is_none() {
        return Ok(None);
    }
    let reply = talk.ask(&f56::ACK, ANSWER, |bytes| {
        f56_tokens(bytes).find_map(|token| match token {
            f56::Token::Payload(payload) => f56::Reply::parse(&payload),
            _ => None,
        })
    })?;
    // what answers something else is the vault's: unconfirmed, it stays in the unit's memory
    let reply = reply.filter(|reply| reply.answers(request));
    if reply.is_some() {
        talk.tell(&f56::ACK)?;
    }
    Ok(reply)
}

fn f56_state(reply: &f56::Reply) -> Found {
    let mut found = Found::default();
    let error = reply.error().map(|error| error.to_string());
    found.state.push(error.unwrap_or_else(|| "no error".to_owned()));
    found.forbid(reply.notes_at_exit() == Some(true), Forbids::NotesAtExit);
    if let Some(cassettes) = reply.cassettes() {
        found.bays = present::<SLOTS>(cassettes.map(|id| id.is_some()));
    }
    found
}

/// One exchange with a Puloon unit.
pub(super) fn puloon_asks(
    talk: &mut Talk,
    question: &PuloonFrame,
    patience: Duration,
) -> Result<Option<PuloonFrame>, ProbeError> {
    let mut bytes = Vec::new();
    question.write(Side::Host, &mut bytes);
    let reply = talk.ask(&bytes, patience, |bytes| {
        puloon_frames(bytes)
            .find(|frame| frame.id() == question.id() && frame.command() == question.command())
    })?;
    if reply.is_some() {
        talk.tell(&[puloon::ACK])?;
        // its EOT ends the exchange
        talk.listen(Duration::from_millis(50), |bytes| bytes.contains(&puloon::EOT).then_some(()))?;
    }
    Ok(reply)
}

impl Found {
    fn forbid(&mut self, so: bool, what: Forbids) {
        if so {
            self.forbids.push(what);
            self.state.push(what.to_string());
        }
    }
}

fn present<const N: usize>(cassettes: [bool; N]) -> std::collections::BTreeMap<BayId, BayState> {
    let state = |there| if there { BayState::Present } else { BayState::Missing };
    let numbered = (1..).zip(cassettes);
    numbered.filter_map(|(bay, there)| Some((BayId::new(bay)?, state(there)))).collect()
}

fn printable(text: &[u8]) -> String {
    let graphic = text.iter().map(|byte| if byte.is_ascii_graphic() { *byte } else { b' ' });
    let text: String = graphic.map(char::from).collect();
    text.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}
