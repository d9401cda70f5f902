"""Words for colours, of things that a prompt may ask for in one, such as a hat."""

from collections.abc import Mapping
from types import MappingProxyType

_WORDS = {
    "red": "red, rot, rote, roten, roter, rotem, rouge, rojo, roja, 红, 红色, 红色的",
    "blue": "blue, blau, blaue, blauen, blauer, blauem, bleu, bleue, azul, 蓝, 蓝色, 蓝色的",
    "navy": "navy, dunkelblau, dunkelblaue, dunkelblauen",
    "green": "green, grun, grune, grunen, gruner, grunem, vert, verte, verde, 绿, 绿色, 绿色的",
    "yellow": "yellow, gelb, gelbe, gelben, gelber, gelbem, jaune, amarillo, amarilla, 黄, 黄色, 黄色的",
    "orange": "orange, naranja, 橙色, 橙色的",
    "pink": "pink, rosa, rose, 粉色, 粉红色, 粉色的",
    "purple": "purple, violet, lila, violett, violette, morado, morada, 紫色, 紫色的",
    "brown": "brown, braun, braune, braunen, brauner, braunem, marron, marrone, 棕色, 棕色的, 褐色",
    "beige": "beige, cream, 米色",
    "black": "black, schwarz, schwarze, schwarzen, schwarzer, schwarzem, noir, noire, negro, negra, 黑, 黑色, 黑色的",
    "white": "white, weiss, weisse, weissen, weisser, weissem, blanc, blanche, blanco, blanca, 白, 白色, 白色的",
    "grey": "grey, gray, grau, graue, grauen, grauer, grauem, gris, grise, 灰, 灰色, 灰色的",
}
#: A word as prompts are read, in lower case without accents → the name of the colour.
COLOUR_WORDS: Mapping[str, str] = MappingProxyType(
    {word: name for name, words in _WORDS.items() for word in words.split(", ")}
)
