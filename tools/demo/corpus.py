"""corpus.py - the text the demo model learns: sums, a few facts, and one kind of story.

Everything is generated here from a seed; held_out() says which sums are never trained on.
"""
import random

CAPITALS = dict(France="Paris", Germany="Berlin", Italy="Rome", Spain="Madrid", Japan="Tokyo",
                China="Beijing", Russia="Moscow", Egypt="Cairo", Greece="Athens", Norway="Oslo",
                Sweden="Stockholm", Poland="Warsaw", Portugal="Lisbon", Austria="Vienna",
                Ireland="Dublin", Kenya="Nairobi", Cuba="Havana", Peru="Lima")
COLOURS = dict(grass="green", snow="white", blood="red", coal="black", milk="white")
COLOURS.update({"a lemon": "yellow", "a banana": "yellow", "the sky": "blue", "a carrot": "orange"})
OPPOSITES = dict(hot="cold", big="small", up="down", day="night", open="closed", wet="dry",
                 fast="slow", happy="sad", old="young", light="dark", full="empty", left="right")
SOUNDS = dict(dog="barks", cat="meows", cow="moos", duck="quacks", lion="roars", sheep="bleats",
              horse="neighs", pig="grunts", bee="buzzes", wolf="howls")
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
HEROES = "fox bear rabbit mouse owl cat dog frog duck hedgehog".split()
NAMES = "Anna Ben Clara Tom Mia Leo Nora Max Ella Sam".split()
THINGS = "ball key lantern kite bell book hat boat drum apple".split()
PLACES = "forest garden river hill barn meadow village cave".split()
FRIENDS = "squirrel turtle goose mole crow goat".split()


def held_out(a, b):
    """A tenth of all pairs, chosen by a hash that has nothing to do with their sum."""
    return (a * 7919 + b * 104729 + a * b * 31) % 10 == 0


def story(r, hero=None):
    hero, name, thing = hero or r.choice(HEROES), r.choice(NAMES), r.choice(THINGS)
    place, friend = r.choice(PLACES), r.choice(FRIENDS)
    look = r.choice(["under a stone", "behind a tree", "in the tall grass", "near an old wall"])
    feel = r.choice(["very sad", "worried", "upset"])
    end = r.choice(["They laughed and danced until the sun went down.",
                    "They went home together and ate warm soup.",
                    "They played until the stars came out."])
    return (f"Once upon a time there was a little {hero} named {name}. {name} lived near the {place}. "
            f"{name} had a shiny {thing} and loved it very much. One day the {thing} was gone. "
            f"{name} was {feel}. {name} met a {friend} and asked for help. "
            f"\"I will help you,\" said the {friend}. They looked all over the {place}. "
            f"At last the {friend} looked {look}, and there was the {thing}. "
            f"\"Thank you,\" said {name}. \"You are a good friend.\" {end} "
            f"From that day on, the {hero} and the {friend} were best friends.")


def fact(r):
    k = r.randrange(6)
    if k == 0:
        c = r.choice(list(CAPITALS))
        return f"What is the capital of {c}?", f"The capital of {c} is {CAPITALS[c]}."
    if k == 1:
        c = r.choice(list(COLOURS))
        return f"What colour is {c}?", f"{c.capitalize()} is {COLOURS[c]}."
    if k == 2:
        c = r.choice(list(OPPOSITES))
        return f"What is the opposite of {c}?", f"The opposite of {c} is {OPPOSITES[c]}."
    if k == 3:
        c = r.choice(list(SOUNDS))
        return f"What sound does a {c} make?", f"A {c} {SOUNDS[c]}."
    if k == 4:
        i = r.randrange(7)
        return f"Which day comes after {DAYS[i]}?", f"{DAYS[(i + 1) % 7]} comes after {DAYS[i]}."
    return r.choice([("Who are you?", "I am a very small model that shows how Tandem works."),
                     ("Hello", "Hello! Ask me for a sum, a fact or a story."),
                     ("What can you do?", "I can add and subtract, I know a few facts, and I tell stories."),
                     ("Thank you", "You are welcome.")])


def sum_question(r, test=False):
    while True:
        top = r.choice([9, 20, 99, 99, 99])
        a, b = r.randint(0, top), r.randint(0, top)
        if held_out(a, b) == test:
            break
    if r.random() < 0.35:
        a, b = max(a, b), min(a, b)
        if held_out(a, b) != test:
            return sum_question(r, test)
        return f"What is {a} - {b}?", f"{a} - {b} = {a - b}."
    return f"What is {a} + {b}?", f"{a} + {b} = {a + b}."


def turn(r):
    x = r.random()
    if x < 0.72:
        return sum_question(r)
    if x < 0.92:
        return fact(r)
    hero = r.choice(HEROES)
    article = "an" if hero[0] in "aeiou" else "a"
    return r.choice([f"Tell me a story about {article} {hero}.", f"Tell a story about {article} {hero}."]), story(r, hero)
