"""Texts as models write them, and what a voice should say: tables by theme. Each is read at every split point."""

from __future__ import annotations

import pytest

from tests.inference.speech.spoken import spoken

EMPHASIS = {
    "*winks* Oh, **really**, ***truly***, _yes_ __indeed__ ~~no~~.": "winks Oh, really, truly, yes indeed no.",
    '"*Hello*," (she _said_).': '"Hello," (she said).',
    "**bold**text and *one* *two*.": "boldtext and one two.",
    "**Note:** 3*4=12, 2 * 3 * 4, 2 *3!": "Note: 3*4=12, 2 * 3 * 4, 2 *3!",
    "snake_case, a_b_c, f****, ~5, * and _ x.": "snake_case, a_b_c, f****, ~5, * and _ x.",
    # next to letters of scripts without blanks between words
    "这是**非常**好的。": "这是非常好的。",
    "这是*非常*好的。": "这是非常好的。",
    "**非常。**好的！": "非常。好的！",
    "他说**“你好”**然后走了。": "他说“你好”然后走了。",
    "これは**とても**良いです。": "これはとても良いです。",
    "이것은 **매우**좋아요.": "이것은 매우좋아요.",
    "**안녕하세요**라고 말했다.": "안녕하세요라고 말했다.",
    "นี่คือ**ดีมาก**ครับ!": "นี่คือดีมากครับ!",
    "这是__非常__好的。": "这是非常好的。",
    "这是~~不~~好的。": "这是不好的。",
    # inside a word
    "foo**(bar)**baz.": "foo(bar)baz.",
    "foo**bar**baz.": "foobarbaz.",
    "un**frigging**believable!": "unfriggingbelievable!",
    "foo**bar baz.": "foo**bar baz.",
    "2**3, x**2 + y**2, 2**n.": "2**3, x**2 + y**2, 2**n.",
    'say **"hi"**now.': 'say "hi"now.',
    # other marks
    "==marks== and a == b.": "marks and a == b.",
    "hello~": "hello.",
    "Okay~! Bye~~": "Okay! Bye.",
    "好的～": "好的。",
    "10～20, ~5 and 5~10.": "10～20, ~5 and 5~10.",
    "Fill in: my name is ____ and I am ___ years old.": "Fill in: my name is and I am years old.",
    "Dear _______,": "Dear,",
    # escapes
    "\\*not\\* 1\\. C:\\dir!": "*not* 1. C:\\dir!",
    "\\!\\\"\\#\\$\\%\\&\\'\\(\\)\\*\\+\\,\\-\\.\\/\\:\\;\\<\\=\\>\\?\\@\\[\\\\\\]\\^\\_\\`\\{\\|\\}\\~!": (
        "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~!"
    ),
    "one\\\ntwo.": "one two.",
    "end\\": "end\\.",
}
BLOCKS = {
    # a voice pauses behind a heading, an item and a paragraph
    "# Title\n\nText\n## More ": "Title. Text. More.",
    "Title\n=====\nText": "Title. Text.",
    "## Why? ##\nBecause": "Why? Because.",
    "Here is the list:\n- one\n* two\n+ three\n  • four": "Here is the list: one. two. three. four.",
    "1. one\n2. two!\n3) three": "1. one. 2. two! 3) three.",
    "1. one\n\n2. two": "1. one. 2. two.",
    "I was born in\n1985. Yes": "I was born in 1985. Yes.",
    "First paragraph\n\nSecond one\nstill the second": "First paragraph. Second one still the second.",
    "First\r\n\r\nSecond\r\nline": "First. Second line.",
    "- one\ncontinued\n- two": "one continued. two.",
    "Hello": "Hello.",
    'He said "hi"': 'He said "hi".',
    'He said "hi."\n\nYes': 'He said "hi." Yes.',
    "Wait…\n\nI was—\n\nOh;": "Wait… I was— Oh;",
    "你好\n\n再见": "你好。 再见。",
    "नमस्ते\n\nठीक है": "नमस्ते। ठीक है।",
    "Привет\n\nПока": "Привет. Пока.",
    "Hi 😀\n\n😀\n\nBye 👋": "Hi. Bye.",
    "...\n\n---\n\n***": "...",
    "#hashtag C# ####### seven.": "#hashtag C# ####### seven.",
    "- [x] done\n- [ ] open": "done. open.",
    "> quoted\n> more\n\nmine": "quoted more. mine.",
    "mine\n> quoted\n> > deep\n>= 3": "mine. quoted. deep >= 3.",
    "-5 degrees\n-- aside\n---\nend\n***\n===\n_ _ _": "-5 degrees -- aside. end.",
    "| a | b |\n|---|:-:|\n| 1 | 2 |\nx | y": "a b. 1 2. x | y.",
    "a | b\n--- | ---\n": "a | b.",
    # code
    "Use `snake_case*` or ``a`b``, don`t!": "Use snake_case* or ab, don`t!",
    "```python\nx = '*a*'\n# y\n```\n*Done*": "x = '*a*' # y. Done.",
    "```inline``` *x*": "inline x.",
    "~~~\n**raw**\n~~~\n**out**": "**raw**. out.",
}
LINKS = {
    'See [the *docs*](http://x.y/z_(w) "T") and ![a cat](c.png)!': "See the docs and a cat!",
    "[![alt](i.png)](http://a.b) [no] a[0](x y) [a.": "alt [no] a[0](x y) [a.",
    "<https://a.b/c_d> http://a.b/c_d_e, https://x.y/:).": "https://a.b/c_d http://a.b/c_d_e, https://x.y/:).",
    "<http://a.b/😀c> and <mailto:a_b_@c.d>.": "http://a.b/c and mailto:a_b_@c.d.",
    f"[docs](http://a.b/{'x' * 200}) end.": "docs end.",
    "See [the docs][1] and [this][] now.\n\n[1]: http://a.b/c_d 'T'\n[this]: <x>\nEnd": (
        "See the docs and this now. End."
    ),
    "a[0][1] and [Mia]: hi.": "a[0][1] and [Mia]: hi.",
    "[Mia]: hi there": "[Mia]: hi there.",
    "It is so[^1] and so[^note].\n\n[^1]: A note": "It is so and so. A note.",
    "Rome is old【3†source】. Paris【4:0†a.txt】 too【no】.": "Rome is old. Paris too【no】.",
    "Rome\ue200cite\ue202turn0search1\ue201 is old.": "Rome is old.",
    "[one](a.b) [two](c.d), [three](#e).": "one two, three.",
}
HTML = {
    "a<b<br>c.": "a<b c.",
    '<b>bold</b> <i>it</i> <span class="x y">s</span><br/>H<sub>2</sub>O.': "bold it s H2O.",
    "<p>one</p><p>two</p><ul><li>three</li></ul>": "one. two. three.",
    '<a href="https://a.b/c?d=e&f=g">here</a>!': "here!",
    "x<b and c>d, 1 < 2 > 0.": "x<b and c>d, 1 < 2 > 0.",
    'Wait <break time="500ms"/> here.': 'Wait <break time="500ms"/> here.',
    '<speak><prosody rate="slow">Hi</prosody></speak>': '<speak><prosody rate="slow">Hi</prosody></speak>.',
    '<sub alias="World Wide Web">WWW</sub>!': '<sub alias="World Wide Web">WWW!',
    "Tom &amp; Jerry &lt;3 &gt; &quot;x&quot; it&apos;s &copy;&nbsp;AT&T.": ('Tom & Jerry <3 > "x" it\'s &copy; AT&T.'),
}
SIGNS = {
    "Hi 😀! Great!😀Let's 👨‍👩‍👧 go 🇩🇪. ✌🏽ok ❤️.": "Hi! Great! Let's go. ok.",
    "1️⃣ one, 2⃣ two, #️⃣ 3 © 2020 ™ ©️ ↔️.": "1 one, 2 two, 3 © 2020 ™.",
    "🏴\U000e0067\U000e0062\U000e007f say“😀”": "say“”.",
    "\u0915\u094d\u200d\u0937!": "\u0915\u094d\u200d\u0937!",
    "می\u200cخواهم!": "می\u200cخواهم!",
    "hey :) thanks:) ;-) :D :P :'( :-)))) <3 </3 ^_^ -_- xD \\o/ ¯\\_(ツ)_/¯ ok.": "hey thanks ok.",
    "Good :). Fine ;)!": "Good. Fine!",
    "(see note:) (:.": "(see note:) (:.",
    "5:30 C: x<3 2 <3 10:3 :30 http://a.b/c std::Dict T-shirt xDrive.": (
        "5:30 C: x<3 2 <3 10:3 :30 http://a.b/c std::Dict T-shirt xDrive."
    ),
    # empty brackets go along
    "Hello (^_^) there.": "Hello there.",
    "Hi (😀)! Hi [👍🏽]! Hi ( 😀 😀 )!": "Hi! Hi! Hi!",
    "Yes (>_<). No (-_-).": "Yes. No.",
    "太好了（😀）！": "太好了！",
    "Fine (thanks 😀).": "Fine (thanks).",
    "Fine (😀 thanks).": "Fine (thanks).",
    "f() and () and (a).": "f() and () and (a).",
    # no emoticons
    "Adobe XD is a tool.": "Adobe XD is a tool.",
    "I like Adobe XD.": "I like Adobe XD.",
    "lol XD that was fun XD!": "lol that was fun!",
    "There are <3 apples.": "There are <3 apples.",
    "I like you <3": "I like you.",
    "The score was 4 :3 at the end.": "The score was 4 :3 at the end.",
    # characters that nobody sees
    "a\u202eb\u202c \u200fc\u200b soft\u00adhyphen \u2066x\u2069 \ufeffy.": "ab c softhyphen x y.",
}
TABLES = {"emphasis": EMPHASIS, "blocks": BLOCKS, "links": LINKS, "html": HTML, "signs": SIGNS}


@pytest.mark.parametrize(("theme", "text"), [(theme, text) for theme, table in TABLES.items() for text in table])
def test_what_a_voice_says(theme: str, text: str) -> None:
    assert spoken(text) == TABLES[theme][text]


# (kinds that are not said, text, what a voice says)
SKIPPED = [
    ("actions", "*winks* Oh, hello *smiles softly* there.", "Oh, hello there."),
    ("actions", "*She looks up.* **Really**? *nods*", "Really?"),
    ("actions", "*nods\nand waves* Yes.", "Yes."),
    ("actions", "*nods **twice** slowly* Yes.", "Yes."),
    ("actions", "2 * 3 = 6, _really_, 3*4.", "2 * 3 = 6, really, 3*4."),
    ("actions", "*never closed\n\nNext.", "Next."),
    ("actions", "他*笑了*说：好。", "他说：好。"),
    ("asides", "Hi (softly). I am here (for now).", "Hi. I am here."),
    ("asides", "Yes (well (almost)), f(x) too.", "Yes, f(x) too."),
    ("asides", "你好（笑）！", "你好！"),
    ("asides", "(never closed\n\nNext.", "Next."),
    ("ooc", "[OOC: be right back] Hello. (ooc: hm) ((brb)) {OOC x} Yes.", "Hello. Yes."),
    ("ooc", "Hi.\nOOC: I have to go\nBye.", "Hi. Bye."),
    ("ooc", "[oocyte] (kept) Ooctopus.", "[oocyte] (kept) Ooctopus."),
    ("code", "Look:\n```python\nprint('*')\n```\nDone.", "Look: Done."),
    ("code", "Use `x_y` here.", "Use x_y here."),
    ("actions asides ooc code", "*waves* (hi) [OOC brb]\n```\nx\n```\nHello!", "Hello!"),
    ("", "*waves* (hi) [OOC brb]", "waves (hi) [OOC brb]."),
]


@pytest.mark.parametrize(("kinds", "text", "said"), SKIPPED)
def test_what_a_persona_does_not_say(kinds: str, text: str, said: str) -> None:
    assert spoken(text, *kinds.split()) == said
