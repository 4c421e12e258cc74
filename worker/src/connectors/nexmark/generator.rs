//! What event number n holds: a function of the seed and n, and of nothing else. Pure.
//!
//! Each value of an event is drawn by a hash of (seed, event, what the value is), so a value does not depend on which
//! other columns a table declares. Bids favour a few auctions and bidders, the newest ones; the ids that they are drawn
//! from move on with the events, unless the table asks for a fixed number of them.

use std::fmt::Write;

use flott_proto::job_graph::NexmarkTable;

/// Of 50 events in a row the first is a person, the next three are auctions, and the rest bids.
const EVENTS: u64 = 50;
const PERSONS: u64 = 1;
const AUCTIONS: u64 = 3;
const BIDS: u64 = EVENTS - PERSONS - AUCTIONS;

/// The first id of auctions and persons.
const FIRST_ID: i64 = 1000;

/// The newest auctions and persons that bids are drawn from where the table fixes no number.
const RECENT_AUCTIONS: u64 = 100;
const RECENT_PEOPLE: u64 = 1000;

/// Every hundredth auction, and person, is a favourite while it is the newest such.
const FAVOURITE_EVERY: u64 = 100;
/// Of so many bids, one does not go to the favourite auction, and one is not by the favourite bidder.
const FAVOURITE_AUCTION_ODDS: u64 = 2;
const FAVOURITE_BIDDER_ODDS: u64 = 4;

const FIRST_CATEGORY: i64 = 10;
const CATEGORIES: u64 = 5;

/// An auction ends within this many events' time after it opened.
const AUCTION_EVENTS_MAX: u64 = 20_000;

/// How events are made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Site {
    pub(super) seed: u64,
    pub(super) base_time_ms: i64,
    pub(super) interval_us: u64,
    pub(super) active_auctions: u64,
    pub(super) active_people: u64,
}

/// One event of a site.
#[derive(Clone, Copy, Debug)]
pub(super) struct Event<'a> {
    pub(super) site: &'a Site,
    pub(super) number: u64,
}

/// A column that a table can have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) values: Values,
}

/// How a column's values are made.
#[derive(Clone, Copy, Debug)]
pub(super) enum Values {
    Number(fn(&Event<'_>) -> i64),
    /// Milliseconds since 1970.
    Time(fn(&Event<'_>) -> i64),
    Text(fn(&Event<'_>, &mut String)),
}

/// How many of 50 events are rows of the table.
pub(super) fn rows_of_50(table: NexmarkTable) -> u64 {
    match table {
        NexmarkTable::Person => PERSONS,
        NexmarkTable::Auction => AUCTIONS,
        NexmarkTable::Bid => BIDS,
    }
}

/// The number of the event that is row `row` of the table.
pub(super) fn event_of_row(table: NexmarkTable, row: u64) -> u64 {
    let first = match table {
        NexmarkTable::Person => 0,
        NexmarkTable::Auction => PERSONS,
        NexmarkTable::Bid => PERSONS + AUCTIONS,
    };
    let of_50 = rows_of_50(table);
    row / of_50 * EVENTS + first + row % of_50
}

/// All columns of a table, in the order of the benchmark.
pub(super) fn columns(table: NexmarkTable) -> &'static [Column] {
    use Values::{Number, Text, Time};
    macro_rules! columns {
        ($($name:literal: $kind:ident($make:expr)),* $(,)?) => {
            &[$(Column { name: $name, values: $kind($make) }),*]
        };
    }
    match table {
        NexmarkTable::Bid => columns![
            "auction": Number(|event| event.bid_auction()),
            "bidder": Number(|event| event.bid_bidder()),
            "price": Number(|event| event.price(Draw::Price)),
            "channel": Text(|event, out| event.write_channel(out)),
            "url": Text(|event, out| event.write_url(out)),
            "date_time": Time(|event| event.time_ms()),
            "extra": Text(|event, out| event.write_letters(Draw::Extra, 10, 50, out)),
        ],
        NexmarkTable::Auction => columns![
            "id": Number(|event| FIRST_ID + event.auctions_before() as i64),
            "item_name": Text(|event, out| event.write_letters(Draw::Name, 5, 20, out)),
            "description": Text(|event, out| event.write_letters(Draw::Description, 20, 100, out)),
            "initial_bid": Number(|event| event.price(Draw::Price)),
            "reserve": Number(|event| event.price(Draw::Price) + event.price(Draw::Reserve)),
            "date_time": Time(|event| event.time_ms()),
            "expires": Time(|event| event.expires_ms()),
            "seller": Number(|event| event.seller()),
            "category": Number(|event| FIRST_CATEGORY + (event.draw(Draw::Category) % CATEGORIES) as i64),
            "extra": Text(|event, out| event.write_letters(Draw::Extra, 50, 200, out)),
        ],
        NexmarkTable::Person => columns![
            "id": Number(|event| FIRST_ID + event.persons_before() as i64),
            "name": Text(|event, out| event.write_person_name(out)),
            "email_address": Text(|event, out| event.write_email(out)),
            "credit_card": Text(|event, out| event.write_credit_card(out)),
            "city": Text(|event, out| out.push_str(event.pick(Draw::City, &CITIES).0)),
            "state": Text(|event, out| out.push_str(event.pick(Draw::City, &CITIES).1)),
            "date_time": Time(|event| event.time_ms()),
            "extra": Text(|event, out| event.write_letters(Draw::Extra, 20, 100, out)),
        ],
    }
}

const CITIES: [(&str, &str); 8] = [
    ("Phoenix", "AZ"),
    ("Los Angeles", "CA"),
    ("San Francisco", "CA"),
    ("Boise", "ID"),
    ("Portland", "OR"),
    ("Bend", "OR"),
    ("Seattle", "WA"),
    ("Cheyenne", "WY"),
];
const FIRST_NAMES: [&str; 8] = [
    "Ada", "Alan", "Barbara", "Edsger", "Grace", "Ken", "Leslie", "Niklaus",
];
const LAST_NAMES: [&str; 8] = [
    "Abbot", "Baker", "Carter", "Draper", "Fisher", "Mason", "Smith", "Turner",
];
const CHANNELS: [&str; 4] = ["search", "social", "mobile", "letter"];

/// What is drawn: values of one event that differ in this are independent.
#[derive(Clone, Copy)]
enum Draw {
    Auction = 1,
    Bidder,
    Price,
    Reserve,
    Channel,
    Url,
    Extra,
    Name,
    Description,
    Expires,
    Seller,
    Category,
    City,
    Card,
    Favourite,
}

impl Event<'_> {
    /// 64 random bits: the finalizer of Vigna's SplitMix64 over seed, event and purpose.
    fn draw(&self, what: Draw) -> u64 {
        mix(mix(mix(self.site.seed) ^ self.number) ^ what as u64)
    }

    fn pick<'t, T>(&self, what: Draw, of: &'t [T]) -> &'t T {
        &of[(self.draw(what) % of.len() as u64) as usize]
    }

    fn time_ms(&self) -> i64 {
        let micros = u128::from(self.number) * u128::from(self.site.interval_us);
        self.site
            .base_time_ms
            .saturating_add(i64::try_from(micros / 1000).unwrap_or(i64::MAX))
    }

    /// Persons among the events before this one, counting this one's group of 50 as far as it has come.
    fn persons_before(&self) -> u64 {
        self.number / EVENTS * PERSONS + (self.number % EVENTS).min(PERSONS)
    }

    fn auctions_before(&self) -> u64 {
        let in_group = (self.number % EVENTS).saturating_sub(PERSONS).min(AUCTIONS);
        self.number / EVENTS * AUCTIONS + in_group
    }

    fn bid_auction(&self) -> i64 {
        if self.site.active_auctions > 0 {
            return FIRST_ID + (self.draw(Draw::Auction) % self.site.active_auctions) as i64;
        }
        self.recent(
            Draw::Auction,
            self.auctions_before(),
            RECENT_AUCTIONS,
            FAVOURITE_AUCTION_ODDS,
        )
    }

    fn bid_bidder(&self) -> i64 {
        if self.site.active_people > 0 {
            return FIRST_ID + (self.draw(Draw::Bidder) % self.site.active_people) as i64;
        }
        self.recent(
            Draw::Bidder,
            self.persons_before(),
            RECENT_PEOPLE,
            FAVOURITE_BIDDER_ODDS,
        )
    }

    fn seller(&self) -> i64 {
        self.recent(
            Draw::Seller,
            self.persons_before(),
            RECENT_PEOPLE,
            FAVOURITE_BIDDER_ODDS,
        )
    }

    /// One of the last `recent` ids of `count`; all but one of `odds` times the favourite.
    fn recent(&self, what: Draw, count: u64, recent: u64, odds: u64) -> i64 {
        let newest = count.saturating_sub(1);
        let bits = self.draw(what);
        let favourite = !mix(bits ^ Draw::Favourite as u64).is_multiple_of(odds);
        let id = if favourite {
            newest / FAVOURITE_EVERY * FAVOURITE_EVERY
        } else {
            newest - bits % recent.min(count.max(1))
        };
        FIRST_ID + id as i64
    }

    /// 100 to 100,000,000 cents, each order of magnitude as likely as the next. Whole numbers only: a float's power
    /// could differ between machines.
    fn price(&self, what: Draw) -> i64 {
        let bits = self.draw(what);
        let magnitude = 10i64.pow(2 + (bits % 6) as u32);
        magnitude + ((bits >> 8) % (9 * magnitude as u64)) as i64
    }

    fn expires_ms(&self) -> i64 {
        let later = 1 + self.draw(Draw::Expires) % AUCTION_EVENTS_MAX;
        let closing = Event {
            number: self.number.saturating_add(later),
            ..*self
        };
        closing.time_ms().max(self.time_ms().saturating_add(1))
    }

    /// Letters, their number from `least` to `most`.
    fn write_letters(&self, what: Draw, least: u64, most: u64, out: &mut String) {
        let mut bits = self.draw(what);
        let count = least + bits % (most - least + 1);
        for at in 0..count {
            if at % 12 == 0 {
                bits = mix(bits);
            }
            out.push((b'a' + (bits % 26) as u8).into());
            bits /= 26;
        }
    }

    /// Half the bids come by one of a few channels, the others by one of ten thousand.
    fn write_channel(&self, out: &mut String) {
        let bits = self.draw(Draw::Channel);
        if bits.is_multiple_of(2) {
            out.push_str(CHANNELS[(bits >> 1) as usize % CHANNELS.len()]);
        } else {
            append(out, format_args!("channel-{}", (bits >> 1) % 10_000));
        }
    }

    fn write_url(&self, out: &mut String) {
        let bits = self.draw(Draw::Url);
        let (section, item) = (bits % 100, (bits >> 8) % 1_000_000);
        append(
            out,
            format_args!("https://auctions.example/{section}/item?id={item}"),
        );
    }

    fn write_person_name(&self, out: &mut String) {
        let bits = self.draw(Draw::Name);
        out.push_str(FIRST_NAMES[bits as usize % FIRST_NAMES.len()]);
        out.push(' ');
        out.push_str(LAST_NAMES[(bits >> 16) as usize % LAST_NAMES.len()]);
    }

    fn write_email(&self, out: &mut String) {
        self.write_letters(Draw::Description, 4, 9, out);
        out.push('@');
        self.write_letters(Draw::Url, 4, 7, out);
        out.push_str(".example");
    }

    fn write_credit_card(&self, out: &mut String) {
        let bits = self.draw(Draw::Card);
        for part in 0..4 {
            let space = if part == 0 { "" } else { " " };
            append(
                out,
                format_args!("{space}{:04}", (bits >> (16 * part)) % 10_000),
            );
        }
    }
}

fn append(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a String takes any text");
}

fn mix(bits: u64) -> u64 {
    let mut bits = bits.wrapping_add(0x9E37_79B9_7F4A_7C15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn site() -> Site {
        Site {
            seed: 42,
            base_time_ms: 1_700_000_000_000,
            interval_us: 100,
            active_auctions: 0,
            active_people: 0,
        }
    }

    fn numbers(site: &Site, table: NexmarkTable, name: &str, rows: u64) -> Vec<i64> {
        let column = columns(table)
            .iter()
            .find(|column| column.name == name)
            .unwrap();
        let Values::Number(value) = column.values else {
            panic!("{name} is not a number");
        };
        let event = |row| Event {
            site,
            number: event_of_row(table, row),
        };
        (0..rows).map(|row| value(&event(row))).collect()
    }

    #[test]
    fn every_event_is_a_row_of_exactly_one_table() {
        let mut events = BTreeSet::new();
        for table in [
            NexmarkTable::Person,
            NexmarkTable::Auction,
            NexmarkTable::Bid,
        ] {
            for row in 0..rows_of_50(table) * 7 {
                assert!(events.insert(event_of_row(table, row)));
            }
        }
        assert!(events.into_iter().eq(0..350));
    }

    #[test]
    fn ids_of_persons_and_auctions_are_consecutive() {
        let site = site();
        let expected: Vec<i64> = (FIRST_ID..FIRST_ID + 200).collect();
        assert_eq!(numbers(&site, NexmarkTable::Person, "id", 200), expected);
        assert_eq!(numbers(&site, NexmarkTable::Auction, "id", 200), expected);
    }

    #[test]
    fn bids_are_on_auctions_and_by_persons_that_exist() {
        let site = site();
        for row in 0..20_000 {
            let event = Event {
                site: &site,
                number: event_of_row(NexmarkTable::Bid, row),
            };
            assert!(
                (FIRST_ID..FIRST_ID + event.auctions_before() as i64)
                    .contains(&event.bid_auction())
            );
            assert!(
                (FIRST_ID..FIRST_ID + event.persons_before() as i64).contains(&event.bid_bidder())
            );
        }
    }

    #[test]
    fn a_fixed_number_of_auctions_is_drawn_from_evenly() {
        let site = Site {
            active_auctions: 10,
            active_people: 3,
            ..site()
        };
        let mut counts = [0; 10];
        for auction in numbers(&site, NexmarkTable::Bid, "auction", 10_000) {
            counts[(auction - FIRST_ID) as usize] += 1;
        }
        assert!(
            counts.iter().all(|count| (800..1200).contains(count)),
            "{counts:?}"
        );
        let people = numbers(&site, NexmarkTable::Bid, "bidder", 1000);
        assert!(
            people
                .iter()
                .all(|id| (FIRST_ID..FIRST_ID + 3).contains(id))
        );
    }

    /// A table that was generated once is generated again, by every release.
    #[test]
    fn golden_events() {
        let site = site();
        assert_eq!(numbers(&site, NexmarkTable::Bid, "price", 3), GOLDEN_PRICES);
        let mut text = String::new();
        Event {
            site: &site,
            number: 4,
        }
        .write_channel(&mut text);
        text.push(' ');
        Event {
            site: &site,
            number: 0,
        }
        .write_person_name(&mut text);
        assert_eq!(text, GOLDEN_TEXT);
    }
    const GOLDEN_PRICES: [i64; 3] = [8_785, 3_920_511, 77_590];
    const GOLDEN_TEXT: &str = "channel-4900 Ada Draper";
}
