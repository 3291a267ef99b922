//! The output parser: cases of the format, and laws that hold for any output.
//!
//! Cases are written as text with control tokens in it, and fed twice: in the tokens that the vocabulary gives, and
//! one byte per token. Both must come to the same.

use carat_chat::message::{Content, Conversation, Message, Role, ToolCall};
use carat_chat::parser::{Event, Parser};
use carat_chat::template::{Variant, render};
use carat_chat::tokenizer::Tokenizer;
use carat_tensor::TokenId;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use std::sync::LazyLock;

static TOKENIZER: LazyLock<Tokenizer> =
    LazyLock::new(|| Tokenizer::from_json(include_bytes!("data/tokenizer.json")).expect("the test vocabulary loads"));

/// Feeds ids; joins neighbouring pieces of thought and of text.
fn parse_from(mut parser: Parser, ids: &[TokenId]) -> Vec<Event> {
    let mut events = Vec::new();
    for &id in ids {
        parser.push(&TOKENIZER, id, &mut events);
    }
    parser.finish(&mut events);
    let mut joined: Vec<Event> = Vec::new();
    for event in events {
        match (joined.last_mut(), event) {
            (Some(Event::Text(last)), Event::Text(more)) | (Some(Event::Thought(last)), Event::Thought(more)) => {
                last.push_str(&more);
            }
            (_, event) => joined.push(event),
        }
    }
    joined
}

/// The ids with every text token taken apart into bytes.
fn as_bytes(ids: &[TokenId]) -> Vec<TokenId> {
    let byte = |b: &u8| TOKENIZER.id(&format!("<0x{b:02X}>")).expect("the vocabulary has all bytes");
    ids.iter()
        .flat_map(|&id| match TOKENIZER.is_control(id) {
            true => vec![id],
            false => TOKENIZER.bytes(id).iter().map(byte).collect(),
        })
        .collect()
}

/// `thought(…)`, `text(…)`, `call(name {json})`, `stop`, `!` for a diagnostic.
fn show(events: &[Event]) -> String {
    let show = |event: &Event| match event {
        Event::Thought(text) => format!("thought({text})"),
        Event::Text(text) => format!("text({text})"),
        Event::ToolCall(call) => format!("call({} {})", call.name, Value::from(call.arguments.clone())),
        Event::Diagnostic(_) => "!".to_owned(),
        Event::Stop => "stop".to_owned(),
    };
    events.iter().map(show).collect::<Vec<_>>().join(" ")
}

#[track_caller]
fn check_after(prompt: &str, raw: &str, expected: &str) {
    let parser = Parser::after_prompt(&TOKENIZER, &TOKENIZER.encode_with_special(prompt));
    let ids = TOKENIZER.encode_with_special(raw);
    assert_eq!(show(&parse_from(parser.clone(), &ids)), expected, "in tokens");
    assert_eq!(show(&parse_from(parser, &as_bytes(&ids))), expected, "in bytes");
}

#[track_caller]
fn check(raw: &str, expected: &str) {
    check_after("<bos><|turn>user\nHi<turn|>\n<|turn>model\n", raw, expected);
}

#[track_caller]
fn check_call(body: &str, expected: &str) {
    check(&format!("<|tool_call>{body}<tool_call|><|tool_response>"), &format!("{expected} stop"));
}

#[test]
fn plain_text_passes_through() {
    check("Hello, world.\n\nBye 🙂<turn|>", "text(Hello, world.\n\nBye 🙂) stop");
    check(" leading and trailing \n<turn|>", "text( leading and trailing \n) stop");
    check("", "");
    check("no end", "text(no end)");
    check("<eos>ignored after", "stop");
}

#[test]
fn a_thought_is_trimmed_at_its_end_and_the_text_after_it_at_its_start() {
    check("<|channel>thought\n a\n\nb \n<channel|>\n\n Answer \n<turn|>", "thought( a\n\nb) text(Answer \n) stop");
    check("<|channel>thought\n<channel|>Answer<turn|>", "text(Answer) stop");
    check("<|channel>thought<channel|>Answer", "text(Answer)");
    check("<|channel>analysis\nx<channel|>y", "thought(x) text(y)");
}

#[test]
fn a_thought_without_a_channel_name_is_not_lost() {
    check("<|channel>I think so.\n<channel|>Yes", "! thought(I think so.) text(Yes)");
    check("<|channel>hmm<channel|>Yes", "! thought(hmm) text(Yes)");
    check("<|channel>thought\nand then", "thought(and then) !");
}

#[test]
fn the_end_of_a_thought_that_is_not_open_is_tolerated() {
    check("a<channel|> b", "text(a) ! text( b)");
}

#[test]
fn the_prompt_decides_where_the_answer_starts() {
    let thinking = "<bos><|turn>user\nq<turn|>\n<|turn>model\n<|channel>thought\na\n<channel|><|tool_call>call:f{}<tool_call|>\
        <|tool_response>response:f{value:<|\"|>x<|\"|>}<tool_response|><|channel>thought\n";
    check_after(thinking, "more\n<channel|>done<turn|>", "thought(more) text(done) stop");
    let empty_thought = "<|turn>model\n<|channel>thought\n<channel|>";
    check_after(empty_thought, "\nHi<turn|>", "text(Hi) stop");
    let unnamed = "<|turn>model\n<|channel>";
    check_after(unnamed, "thought\nx<channel|>y", "thought(x) text(y)");
    let earlier = "<|turn>model\n<|channel>thought\nx<turn|>\n<|turn>model\n";
    check_after(earlier, " y", "text( y)");
    check_after("once upon", " a time", "text( a time)");
    let answered = "<|turn>model\n<|tool_call>call:f{}<tool_call|><|tool_response>response:f{}<tool_response|>";
    check_after(answered, "It is.<turn|>", "text(It is.) stop");
}

#[test]
fn calls_follow_thoughts_text_and_each_other() {
    check(
        "<|channel>thought\nx\n<channel|>\n<|tool_call>call:f{a:1}<tool_call|>\n<|tool_call>call:g{}<tool_call|><|tool_response>",
        "thought(x) call(f {\"a\":1}) call(g {}) stop",
    );
    check("Let me see.<|tool_call>call:f{}<tool_call|><tool_call|>\nDone", "text(Let me see.) call(f {}) text(\nDone)");
    check("<|channel>thought\nx<|tool_call>call:f{}<tool_call|>", "thought(x) ! call(f {})");
    check("<|tool_call>call:f{a:1}<|tool_call>call:g{}<tool_call|>", "! call(f {\"a\":1}) call(g {})");
}

#[test]
fn a_call_that_is_cut_off_is_text() {
    check("<|tool_call>call:rm{path:<|\"|>/tmp", "! text(call:rm{path:\"/tmp)");
    check("a<|tool_call>call:f{}<tool_call|> <|tool_call>call:g{}", "text(a) call(f {}) ! text(call:g{})");
    check("a<|tool_call>", "text(a) !");
    check("<|tool_call>call:f{a:1<turn|>", "! ! call(f {\"a\":1}) stop");
}

#[test]
fn calls_get_ids_of_their_own() {
    let ids = TOKENIZER.encode_with_special("<|tool_call>call:f{}<tool_call|><|tool_call>call:f{}<tool_call|>");
    let found = parse_from(Parser::new(), &ids).into_iter().map(|event| match event {
        Event::ToolCall(call) => call.id,
        other => panic!("{other:?}"),
    });
    assert_eq!(found.collect::<Vec<_>>(), [Some("call_0".to_owned()), Some("call_1".to_owned())]);
}

#[test]
fn values_are_read_as_the_grammar_says() {
    check_call(
        "call:a.b-c:d{s:<|\"|>x, {y}: \"z\"\n]<|\"|>,i:3,f:-1.5e-07,t:true,n:null,o:{k:[1,<|\"|>a<|\"|>,{}]},e:[]}",
        r#"call(a.b-c:d {"s":"x, {y}: \"z\"\n]","i":3,"f":-1.5e-7,"t":true,"n":null,"o":{"k":[1,"a",{}]},"e":[]})"#,
    );
    check_call("call: f { a : 1 , <|\"|>b c<|\"|> : [ 2 , 3 ] }", r#"call(f {"a":1,"b c":[2,3]})"#);
    check_call("call:f{z:18446744073709551615,a:007x}", r#"! call(f {"z":18446744073709551615,"a":"007x"})"#);
    check_call("call:f{<|\"|><|\"|>:<|\"|><|\"|>}", r#"call(f {"":""})"#);
}

#[test]
fn broken_calls_are_repaired_and_said_to_be() {
    check_call("f{a:1}", r#"! call(f {"a":1})"#);
    check_call("call:f{a:1", r#"! call(f {"a":1})"#);
    check_call("call:f{a:{b:[1,2}}", r#"! call(f {"a":{"b":[1,2]}})"#);
    check_call("call:f{a:[{b:1],c:2}", r#"! call(f {"a":[{"b":1}],"c":2})"#);
    check_call("call:f", "! call(f {})");
    check_call("call:f a:<|\"|>x<|\"|>,b:{c:1}", r#"! call(f {"a":"x","b":{"c":1}})"#);
    check_call("call:f:a:<|\"|>x<|\"|>", r#"! call(f {"a":"x"})"#);
    check_call("call:f{a:Paris, France,b:new york}", r#"! call(f {"a":"Paris","France":null,"b":"new york"})"#);
    check_call(r#"call:f{"a": "x\n\"y\"", b: "z"}"#, r#"! call(f {"a":"x\n\"y\"","b":"z"})"#);
    check_call("call:f{a:<|\"|>never closed}", r#"! call(f {"a":"never closed}"})"#);
    check_call("call:f{a:<|\"|>x<|\"|>b:2}", r#"! call(f {"a":"x","b":2})"#);
    check_call("call:f{a:}", r#"! call(f {"a":null})"#);
    check_call("call:f{a:1}}}", r#"! call(f {"a":1})"#);
    check_call(r#"{"name": "f", "arguments": {"a": [1, "b"]}}"#, r#"! call(f {"a":[1,"b"]})"#);
}

#[test]
fn what_is_no_call_is_shown_as_text() {
    check("<|tool_call><tool_call|>a", "! text(a)");
    check("<|tool_call>{<|\"|>x<|\"|>:1}<tool_call|>", "! text({\"x\":1})");
    check("<|tool_call>call:f{a:<|\"|>b<|\"|><turn|>", "! ! call(f {\"a\":\"b\"}) stop");
}

#[test]
fn control_tokens_without_a_meaning_are_dropped() {
    check("a<|image|>b<|\"|>c<|turn>d", "text(a) ! text(b) ! text(c) ! text(d)");
}

#[test]
fn deep_nesting_ends_as_text() {
    let deep = format!("call:f{{a:{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let ids = TOKENIZER.encode_with_special(&format!("<|tool_call>{deep}<tool_call|>"));
    assert!(parse_from(Parser::new(), &ids).iter().any(|event| matches!(event, Event::ToolCall(_))));
}

#[test]
fn bytes_that_are_not_a_character_become_replacement_characters() {
    let byte = |b: u8| TOKENIZER.id(&format!("<0x{b:02X}>")).unwrap();
    let mut parser = Parser::new();
    let mut events = Vec::new();
    for b in "é".bytes() {
        parser.push(&TOKENIZER, byte(b), &mut events);
    }
    assert_eq!(events, [Event::Text("é".to_owned())], "a character comes out whole");
    let half = [byte(0xf0), byte(0x9f), TOKENIZER.special().turn_close.unwrap()];
    assert_eq!(show(&parse_from(Parser::new(), &half)), "text(\u{fffd}) stop");
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_filter("JSON has no others", |x| x.is_finite()).prop_map(Value::from),
        string().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            fields(inner).prop_map(Value::from)
        ]
    })
}

fn string() -> impl Strategy<Value = String> {
    prop_oneof![".{0,12}", "(<\\|\"\\|>|<tool_call\\|>|[{}\\[\\],:\" \n]|[a-z]){0,12}"]
}

fn fields(inner: impl Strategy<Value = Value>) -> impl Strategy<Value = Map<String, Value>> {
    prop::collection::vec(("[A-Za-z_][A-Za-z0-9_.-]{0,7}", inner), 0..5).prop_map(|pairs| pairs.into_iter().collect())
}

fn call() -> impl Strategy<Value = ToolCall> {
    ("[a-z][A-Za-z0-9_.:-]{0,10}", fields(value())).prop_map(|(name, arguments)| ToolCall { id: None, name, arguments })
}

/// Any ids of the vocabulary, control tokens often.
fn ids() -> impl Strategy<Value = Vec<TokenId>> {
    let n = TOKENIZER.vocab_size() as u32;
    let controls: Vec<u32> = (0..n).filter(|&id| TOKENIZER.is_control(TokenId(id))).collect();
    let words = ["call", ":", "{", "}", "[", "]", ",", "thought", "\n", " ", "\"", "1", "a"];
    let words = words.map(|word| TOKENIZER.encode(word)[0].0).to_vec();
    let one = prop_oneof![0..n, prop::sample::select(controls), prop::sample::select(words)];
    prop::collection::vec(one.prop_map(TokenId), 0..60)
}

proptest! {
    #[test]
    fn a_rendered_call_is_read_back_equal(calls in prop::collection::vec(call(), 1..4), thought in string()) {
        let mut message = Message::text(Role::Assistant, "");
        message.content = Content::Empty;
        message.reasoning = Some(thought.clone()).filter(|thought| !thought.is_empty());
        message.tool_calls = calls.clone();
        let mut conversation = Conversation { messages: vec![Message::text(Role::User, "q")], ..Default::default() };
        conversation.add_generation_prompt = true;
        let prompt = render(&conversation, Variant::Small).encode(&TOKENIZER);
        conversation.messages.push(message);
        let whole = render(&conversation, Variant::Small).encode(&TOKENIZER);
        prop_assert!(whole.starts_with(&prompt), "an answer continues its prompt");
        let events = parse_from(Parser::after_prompt(&TOKENIZER, &prompt), &whole[prompt.len()..]);

        let mut expected = Vec::new();
        if !thought.trim_end().is_empty() {
            expected.push(Event::Thought(thought.trim_end().to_owned()));
        }
        expected.extend(calls.into_iter().enumerate().map(|(i, call)| {
            Event::ToolCall(ToolCall { id: Some(format!("call_{i}")), ..call })
        }));
        expected.push(Event::Stop);
        prop_assert_eq!(events, expected);
    }

    #[test]
    fn the_cut_into_tokens_does_not_matter(ids in ids()) {
        prop_assert_eq!(parse_from(Parser::new(), &ids), parse_from(Parser::new(), &as_bytes(&ids)));
    }

    #[test]
    fn any_prompt_gives_a_parser(prompt in ids(), output in ids()) {
        parse_from(Parser::after_prompt(&TOKENIZER, &prompt), &output);
    }

    #[test]
    fn every_character_outside_control_tokens_appears_once(
        pieces in prop::collection::vec((any::<bool>(), "[ \na-zé🙂<|>\"{}]{0,12}"), 0..12),
    ) {
        let special = TOKENIZER.special();
        let (open, close) = (special.channel_open.unwrap(), special.channel_close.unwrap());
        let mut ids = Vec::new();
        let (mut thoughts, mut texts) = (String::new(), String::new());
        for (is_thought, text) in &pieces {
            if *is_thought {
                ids.push(open);
                TOKENIZER.encode_into(&format!("thought\n{text}"), &mut ids);
                ids.push(close);
                thoughts += text;
            } else {
                TOKENIZER.encode_into(text, &mut ids);
                texts += text;
            }
        }
        let (mut got_thoughts, mut got_texts) = (String::new(), String::new());
        for event in parse_from(Parser::new(), &ids) {
            match event {
                Event::Thought(text) => got_thoughts += &text,
                Event::Text(text) => got_texts += &text,
                other => prop_assert!(false, "{other:?}"),
            }
        }
        // White space is trimmed around thoughts; nothing else may be missing.
        let black = |text: &str| text.split_whitespace().collect::<String>();
        prop_assert_eq!(black(&got_thoughts), black(&thoughts));
        prop_assert_eq!(black(&got_texts), black(&texts));
    }
}

#[test]
fn arguments_keep_the_order_in_which_they_came() {
    let ids = TOKENIZER.encode_with_special("<|tool_call>call:f{b:1,a:2}<tool_call|>");
    let events = parse_from(Parser::new(), &ids);
    let Event::ToolCall(call) = &events[0] else { panic!("{events:?}") };
    assert_eq!(call.arguments.keys().collect::<Vec<_>>(), ["b", "a"]);
    assert_eq!(Value::from(call.arguments.clone()), json!({"a": 2, "b": 1}));
}
