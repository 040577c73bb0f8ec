"""Word lists and template prose of the synthetic dialogues. All text is written for this project."""

NAMES = """Anna Ben Clara David Elena Felix Greta Hugo Irene Jonas Katja Leo Marta Nils Olga Paul Rosa Simon Tara Ulf Vera
Walter Xenia Yann Zoe Adam Bella Carlo Dina Emil Fiona Georg Hanna Ivan Julia Karl Lena Marco Nora Otto Petra Quinn Rita
Stefan Tina Uma Victor Wanda Yusuf Zara Alma Boris Cora Dario Edith Frank Gina Henri Ida Jan Kira Liam Mona Noah Ole
Pia Rafael Sara Theo Ursula Vito Willa Yara Amir Beate Cem Doris Erik Flora Gerd Helga Ilse Jakob Klara Lukas Mira Nadia
Oskar Pablo Ruth Samir Thea Urs Viola Wim Yvonne Aisha Bruno Chloe Diego Esther Finn Gloria Hassan Ingrid Joel Kofi Lara
Milan Nina Omar Priya Rina Sven Talia Usha Vincent Wendy Yuki Agnes Basil Celia Dmitri Elsa Farid Gwen Harald Iris Jorge
Kim Lotte Moritz Nelly Orla Pedro Ravi Selma Tobias Ulla Valeria Wolf Yasmin""".split()
CITIES = """Oslo Paris Lima Cairo Delhi Quito Rome Tokyo Accra Berlin Dublin Geneva Havana Istanbul Jakarta Kyoto London
Madrid Nairobi Osaka Prague Riga Seoul Tunis Vienna Warsaw Zurich Athens Boston Chicago Dakar Essen Florence Ghent
Hamburg Izmir Lagos Milan Naples Porto Reno Sofia Tampa Utrecht Venice York""".split()
COLORS = "red blue green yellow black white orange purple brown grey pink silver".split()
ANIMALS = "cat dog horse owl fox bear goose wolf otter eagle rabbit mouse deer seal crow frog".split()
FRUITS = "apple pear plum cherry grape lemon peach banana mango fig melon orange".split()
NOUNS = """house river garden table window bridge road letter book clock lamp chair forest village market boat train
station mountain field harbour tower door kitchen wall roof street corner hill valley lake island castle museum library
school office bakery workshop farm barn cellar stairs square fountain path meadow shore beach cloud storm winter summer
morning evening basket bottle hammer ladder carpet mirror candle blanket pocket button ribbon needle engine wheel""".split()
ADJECTIVES = """old small large quiet bright dark narrow wide warm cold green blue grey heavy light empty full clean dusty
wooden golden silver gentle strong slow early late distant famous simple strange ordinary pleasant rough smooth""".split()
PLACES = """market square|town hall|old harbour|north gate|railway station|village school|river bank|public library|city
park|east wing|upper floor|back yard|main street|open field|stone bridge|small chapel""".replace("\n", " ").split("|")
PERSONS = """baker|teacher|farmer|doctor|painter|sailor|postman|gardener|carpenter|driver|cook|guard|student|musician|
neighbour|visitor|writer|miller|fisherman|tailor""".replace("\n", "").split("|")
VERBS_PAST = """opened|closed|found|carried|repaired|painted|watched|followed|described|left|reached|remembered|visited|
cleaned|moved|noticed|admired|passed|crossed|sketched""".replace("\n", "").split("|")
ADVERBS = "slowly quickly quietly carefully often rarely again together alone gladly already".split()
TIMES = """in the morning|in the evening|after lunch|before sunset|last week|on Monday|on Friday|during the winter|in
spring|at noon|late at night|every summer|for many years|once a month""".replace("\n", " ").split("|")
VERBS = """get set list find create delete update send fetch open close start stop check count convert book cancel move copy
search show add remove lock unlock schedule translate measure compute track""".split()
OBJECTS = """weather user file order message timer alarm invoice ticket note event contact room light song route price
report task photo backup device account parcel recipe score meeting reminder sensor channel""".split()
STRING_PARAMS = """city name title path query color country language category topic label owner folder subject color_name
recipient status currency unit brand""".split()
INTEGER_PARAMS = """count limit days hours minutes amount size level page year quantity port index width height
priority""".split()
NUMBER_PARAMS = "temperature price ratio weight distance speed".split()
BOOLEAN_PARAMS = "urgent verbose recursive force public silent enabled".split()
SYLLABLES = """ba be bi bo da de di do fa fi ga go ka ke ki ko la le li lo ma me mi mo na ne ni no pa pe po ra re ri ro sa se
si so ta te ti to va ve vi vo wa we za ze zo lun mar nor pel quin ros sten tor vel zan""".split()
SYSTEMS = ["You are a helpful assistant.", "You are a helpful assistant.", "You are a friendly assistant.",
           "Answer briefly.", "You are ds4-tiny, a small assistant.", "Be polite and short.", "You help the user.",
           "You are a careful assistant. Answer in one sentence."]


def made_up(rng, syllables=None):
    """A pronounceable word nobody has seen."""
    return "".join(rng.choice(SYLLABLES) for _ in range(syllables or rng.randint(2, 4)))


def sentence(rng):
    """One sentence of template prose without names or numbers of its own. Words at the front of their lists are the
    frequent ones (the share of the first k of n is the root of k / n), as no natural text draws all words alike."""
    def pick(items):
        return items[int(len(items) * rng.random() ** 2)]
    kind = pick(range(12))
    noun, adjective, place, person = pick(NOUNS), pick(ADJECTIVES), pick(PLACES), pick(PERSONS)
    verb, when = pick(VERBS_PAST), pick(TIMES)
    if kind == 0:
        return f"The {adjective} {noun} near the {place} was {pick(ADJECTIVES)} {when}."
    if kind == 1:
        return f"A {person} {verb} the {adjective} {noun} {when}."
    if kind == 2:
        return f"{when[0].upper()}{when[1:]}, the {person} {verb} a {noun} and a {pick(NOUNS)}."
    if kind == 3:
        return f"Nobody {verb} the {noun}, because the {pick(NOUNS)} was {adjective}."
    if kind == 4:
        return f"Behind the {place} there is a {adjective} {noun} with a {pick(ADJECTIVES)} {pick(NOUNS)}."
    if kind == 5:
        return f"The {person} and the {pick(PERSONS)} {verb} the {noun} {pick(ADVERBS)}."
    if kind == 6:
        return f"It was {adjective} {when}, and the {noun} looked {pick(ADJECTIVES)}."
    if kind == 7:
        return f"From the {place} one could see the {noun}, the {pick(NOUNS)} and the {pick(NOUNS)}."
    if kind == 8:
        return f"The {person} said that the {noun} was too {adjective}."
    if kind == 9:
        return f"Someone {verb} the {noun} {pick(ADVERBS)}, and the {person} {pick(VERBS_PAST)} it {when}."
    if kind == 10:
        return f"Every {noun} at the {place} was {adjective} and {pick(ADJECTIVES)}."
    return f"A {adjective} {noun} stood between the {pick(NOUNS)} and the {place}."


def words_line(rng, count):
    """A line of `count` unrelated words, some of them made up, some numbers."""
    out = []
    for _ in range(count):
        roll = rng.random()
        if roll < 0.6:
            out.append(rng.choice(rng.choice((NOUNS, ADJECTIVES, COLORS, ANIMALS, FRUITS))))
        elif roll < 0.85:
            out.append(made_up(rng))
        else:
            out.append(str(rng.randint(0, 9999)))
    return " ".join(out)
