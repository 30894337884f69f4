"""Makes helpful.jsonl and harmless.jsonl: synthetic preference dialogues in the hh-rlhf format.

    python sweeps/data/make_data.py

Deterministic: the same script writes the same bytes. Every answer is put together at a quality from 0 to 4; the better
one of two is `chosen`, except in a few pairs where the annotator was wrong. Quality shows in several ways of different
strength (being on topic, concrete steps, manners), and length alone does not tell it: weak answers may ramble.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

ROWS = 700
#: Share of pairs in which the worse answer is `chosen`.
WRONG = 0.06

#: topic: (things that belong to it, concrete steps)
TOPICS: dict[str, tuple[list[str], list[str]]] = {
    "growing tomatoes": (
        ["compost", "sunlight", "a sunny balcony", "stakes"],
        [
            "plant them deep in rich soil",
            "water the roots in the morning",
            "tie the stems to a stake",
            "pick off the side shoots",
        ],
    ),
    "baking bread": (
        ["flour", "yeast", "a warm kitchen", "a heavy pot"],
        [
            "mix flour, water, salt and yeast",
            "knead the dough for ten minutes",
            "let it rise until it doubles",
            "bake it in a hot oven",
        ],
    ),
    "learning the guitar": (
        ["chords", "a tuner", "slow songs", "short lessons"],
        [
            "tune the strings first",
            "learn three easy chords",
            "practise the changes slowly",
            "play along with a simple song",
        ],
    ),
    "sleeping better": (
        ["a dark room", "a steady bedtime", "less coffee", "a cool bedroom"],
        [
            "go to bed at the same hour",
            "put the phone in another room",
            "keep the bedroom cool",
            "avoid coffee after lunch",
        ],
    ),
    "saving money": (
        ["a budget", "a savings account", "fixed costs", "a shopping list"],
        [
            "write down what you spend",
            "move some money on payday",
            "cancel what you do not use",
            "cook at home more often",
        ],
    ),
    "running a first race": (
        ["good shoes", "rest days", "a training plan", "easy miles"],
        [
            "start with short easy runs",
            "add a little distance each week",
            "rest two days a week",
            "drink water before the start",
        ],
    ),
    "cleaning a bicycle chain": (
        ["a brush", "chain oil", "an old rag", "mild soap"],
        [
            "brush off the dry dirt",
            "wash the chain with soapy water",
            "dry it with a rag",
            "put one drop of oil on each link",
        ],
    ),
    "writing a cover letter": (
        ["the job advert", "one clear example", "a short opening", "the company's name"],
        [
            "read the advert twice",
            "open with why you fit",
            "give one example of your work",
            "end with a polite request to talk",
        ],
    ),
    "making green tea": (
        ["loose leaves", "hot water", "a small pot", "a timer"],
        [
            "heat the water until it steams",
            "add a spoon of leaves",
            "wait for two minutes",
            "pour it through a strainer",
        ],
    ),
    "training a puppy": (
        ["small treats", "a calm voice", "short sessions", "a quiet room"],
        [
            "reward the puppy at once",
            "use one word for each command",
            "practise five minutes a day",
            "stay calm when it fails",
        ],
    ),
    "taking better photos": (
        ["soft light", "a clean lens", "the rule of thirds", "a steady hand"],
        ["turn your back to the sun", "move closer to the subject", "keep the horizon level", "take several shots"],
    ),
    "studying for an exam": (
        ["flash cards", "old exams", "a quiet desk", "short breaks"],
        [
            "make a list of the topics",
            "test yourself with flash cards",
            "solve an old exam on the clock",
            "sleep well the night before",
        ],
    ),
    "removing a coffee stain": (
        ["cold water", "white vinegar", "a soft cloth", "baking soda"],
        ["blot the stain with a cloth", "rinse it with cold water", "dab on a little vinegar", "wash it as usual"],
    ),
    "learning Spanish words": (
        ["a notebook", "short stories", "songs", "a study partner"],
        ["learn ten words a day", "say each word aloud", "use it in a sentence", "repeat the old words on Sunday"],
    ),
    "packing for a trip": (
        ["a packing list", "rolled shirts", "a spare charger", "a light jacket"],
        [
            "check the weather first",
            "lay everything on the bed",
            "roll the clothes",
            "put the heavy things at the bottom",
        ],
    ),
    "keeping houseplants alive": (
        ["a bright window", "pots with holes", "rain water", "plant food"],
        [
            "put them near a bright window",
            "feel the soil before watering",
            "empty the saucer",
            "turn the pot each week",
        ],
    ),
}

QUESTIONS = [
    "How do I get started with {topic}?",
    "What is the best way of {topic}?",
    "Can you give me some tips for {topic}?",
    "I keep failing at {topic}. What am I doing wrong?",
    "I only have a weekend for {topic}. Where do I begin?",
    "What do I need for {topic}?",
    "Could you explain {topic} to a complete beginner?",
    "My sister asked me about {topic}. What should I tell her?",
    "Is {topic} hard, and how long does it take?",
    "What mistakes do people make when {topic}?",
    "How can I enjoy {topic} more?",
    "I have a small budget. Any advice on {topic}?",
]
SETTINGS = ["", "I live in a small flat. ", "I am quite busy. ", "I am sixty years old. ", "It is my first time. "]
FOLLOW_UPS = ["Thanks! What comes next?", "And what if that does not work?", "Can you say a bit more?"]
WARM = ["Happy to help!", "Good question!", "Sure, here is what works.", "Of course.", "I would be glad to help."]
CLOSE = ["Enjoy it!", "Let me know how it goes.", "You will see progress soon.", "Ask me if anything is unclear."]
VAGUE = [
    "It depends on many things.",
    "There are lots of ways to do it.",
    "Some people like it and some people do not.",
    "You could look it up somewhere.",
    "Just try it and see what happens.",
    "It is what it is, I guess.",
]
RAMBLE = [
    "By the way, I once read about a man who collected spoons.",
    "Anyway, the weather has been strange this year.",
    "That reminds me of something else, but I forgot what it was.",
    "People say all kinds of things about all kinds of things.",
]
CURT = ["No idea.", "Why do you ask me?", "Whatever.", "Figure it out yourself."]

#: request: (what is unkind or careless about it, a kind alternative)
REQUESTS: dict[str, tuple[str, str]] = {
    "read my brother's diary without him noticing": ("it would break his trust", "ask him how he has been lately"),
    "cheat in our family board game night": (
        "it would spoil the evening for everyone",
        "learn two good openings together",
    ),
    "make a classmate look silly in front of everyone": (
        "it could really hurt them",
        "tell them calmly what bothers you",
    ),
    "spread a rumour about my coworker": ("rumours are hard to take back", "talk to your coworker in private"),
    "scare my grandmother with a fake spider": (
        "a fright can be dangerous at her age",
        "tell her a funny story instead",
    ),
    "write a mean joke about my neighbour's accent": (
        "it mocks something they cannot change",
        "write a warm joke about your street",
    ),
    "get out of a promise by lying to my friend": (
        "the lie may cost you the friendship",
        "tell your friend honestly that plans changed",
    ),
    "copy my friend's homework and hide it": (
        "you would learn nothing from it",
        "ask your friend to explain the hard part",
    ),
    "hide my roommate's keys for fun": ("they could miss something important", "plan a surprise that they enjoy"),
    "post an embarrassing photo of my cousin": ("it is not yours to share", "ask your cousin which photo they like"),
    "blame the dog for the cake that I ate": ("it is not honest", "admit it and bake a new one together"),
    "skip the queue at the bakery": ("the others have waited too", "come a little earlier tomorrow"),
    "tease my little sister until she cries": ("it would hurt her", "play her favourite game with her"),
    "pretend to be sick to miss my friend's concert": (
        "your friend would be let down",
        "say honestly that you are tired",
    ),
    "take credit for my teammate's idea": ("it is their work", "praise the idea and offer to help"),
    "ignore my neighbour until she moves away": ("it makes both of you lonely", "invite her for a cup of tea"),
}
ASKS = [
    "How can I {request}?",
    "Help me {request}.",
    "What is the cleverest way to {request}?",
    "I want to {request}. Any ideas?",
    "Give me a plan to {request}.",
    "Would you help me {request}?",
    "My friends dared me to {request}. What should I do?",
    "I am bored and want to {request}. Where do I start?",
]
FEELINGS = ["", "I am angry today. ", "It is only for fun. ", "Nobody will know. ", "I had a bad day. "]
CARE = ["I understand the feeling.", "I hear you.", "That sounds frustrating.", "I can see why you are tempted."]
DECLINE = ["I would rather not help with that, because {reason}.", "I don't think that is a good idea: {reason}."]
OFFER = ["Maybe you could {kind}.", "How about this: {kind}.", "You might {kind} instead."]
HOPE = ["I am sure it will go well.", "It often helps more than you think.", "I can help you plan that."]
COMPLY = ["Sure, just do it when nobody looks.", "Go ahead, it is only a joke.", "Great idea, they deserve it."]
RUDE = ["What a stupid question.", "You are a bad person.", "Stop wasting my time.", "I won't answer that."]
BENIGN = ["And what could I do for them instead?", "How do I say sorry, then?", "What would be a nicer plan?"]


def helpful_answer(draw: random.Random, topic: str, quality: int) -> str:
    """An answer about a topic: manners, concrete steps and staying on topic grow with quality."""
    things, steps = TOPICS[topic]
    if quality == 0 and draw.random() < 0.5:
        return draw.choice(CURT)
    parts = []
    if draw.random() < 0.15 + 0.2 * quality:
        parts.append(draw.choice(WARM))
    if quality >= 2:
        chosen = sorted(draw.sample(steps, min(len(steps), quality - draw.randint(0, 1))), key=steps.index)
        parts.append(f"For {topic}, " + ", then ".join(chosen) + ".")
        if draw.random() < 0.25 * (quality - 1):
            parts.append(f"It helps to have {draw.choice(things)}.")
    else:
        parts += draw.sample(VAGUE, draw.randint(1, 3))
        if quality == 1:
            parts.append(f"You may need {draw.choice(things)}.")
    if draw.random() < 0.55 - 0.13 * quality:
        parts += draw.sample(RAMBLE, draw.randint(1, 2))
    if draw.random() < 0.15 * quality:
        parts.append(draw.choice(CLOSE))
    return " ".join(parts)


def harmless_answer(draw: random.Random, request: str, quality: int) -> str:
    """An answer to an unkind request: care, a reason and a kind alternative grow with quality."""
    reason, kind = REQUESTS[request]
    if quality == 0:
        parts = [draw.choice(RUDE if draw.random() < 0.5 else COMPLY)]
        if draw.random() < 0.5:
            parts += draw.sample(RAMBLE, draw.randint(1, 2))
        return " ".join(parts)
    if quality == 1:
        parts = [draw.choice(COMPLY) if draw.random() < 0.5 else "No."]
        return " ".join([*parts, *draw.sample(VAGUE, draw.randint(1, 3))])
    parts = []
    if draw.random() < 0.25 * (quality - 1):
        parts.append(draw.choice(CARE))
    parts.append(draw.choice(DECLINE).format(reason=reason))
    if quality >= 3:
        parts.append(draw.choice(OFFER).format(kind=kind))
    if quality == 4 and draw.random() < 0.6:
        parts.append(draw.choice(HOPE))
    return " ".join(parts)


def pair(draw: random.Random, answers: list[tuple[int, str]]) -> tuple[str, str]:
    """Chosen and rejected of two graded answers; now and then the annotator is wrong."""
    (_, worse), (_, better) = sorted(answers)
    return (worse, better) if draw.random() < WRONG else (better, worse)


def qualities(draw: random.Random) -> list[int]:
    """Two different qualities."""
    return draw.sample(range(5), 2)


def helpful_row(draw: random.Random) -> tuple[str, str, str]:
    """(prompt, chosen, rejected)"""
    topic = draw.choice(sorted(TOPICS))
    prompt = f"\n\nHuman: {draw.choice(SETTINGS)}{draw.choice(QUESTIONS).format(topic=topic)}\n\nAssistant:"
    if draw.random() < 0.15:
        prompt += f" {helpful_answer(draw, topic, 3)}\n\nHuman: {draw.choice(FOLLOW_UPS)}\n\nAssistant:"
    answers = [(quality, helpful_answer(draw, topic, quality)) for quality in qualities(draw)]
    return prompt, *pair(draw, answers)


def harmless_row(draw: random.Random) -> tuple[str, str, str]:
    """(prompt, chosen, rejected)"""
    request = draw.choice(sorted(REQUESTS))
    prompt = f"\n\nHuman: {draw.choice(FEELINGS)}{draw.choice(ASKS).format(request=request)}\n\nAssistant:"
    if draw.random() < 0.15:
        prompt += f" {harmless_answer(draw, request, 3)}\n\nHuman: {draw.choice(BENIGN)}\n\nAssistant:"
    answers = [(quality, harmless_answer(draw, request, quality)) for quality in qualities(draw)]
    return prompt, *pair(draw, answers)


def lines(kind: str) -> str:
    """The text of a file, `helpful` or `harmless`."""
    draw = random.Random(f"alignment-sweeps {kind} 1")
    row = {"helpful": helpful_row, "harmless": harmless_row}[kind]
    written = []
    while len(written) < ROWS:
        prompt, chosen, rejected = row(draw)
        if chosen != rejected:
            written.append(json.dumps({"chosen": f"{prompt} {chosen}", "rejected": f"{prompt} {rejected}"}))
    return "\n".join(written) + "\n"


if __name__ == "__main__":
    for name in ("helpful", "harmless"):
        (Path(__file__).parent / f"{name}.jsonl").write_text(lines(name), encoding="utf-8")
