"""A real text of several paragraphs, written for these tests."""

TEXT = """\
The lighthouse on the northern cape was built in 1871, after three ships had been lost on the reef in one winter. \
Dr. Ellen Marsh, who surveyed the coast for the harbour board, chose the site because the rock there does not crumble \
under frost. The tower is made of granite that was cut on the spot, e.g. from the ledge that now carries the stairs.

For forty years the lamp burned oil, and two keepers shared the watch through every night. The keepers trimmed the \
wick each hour, and they wrote the weather into a log that is still kept in the harbour museum. When the oil ran short \
in the winter of 1893, the keepers burned their own furniture to keep the lamp alight.

Electric light came to the lighthouse in 1911. The new lamp could be seen from twice the distance, and no ship has \
been lost on the reef since. One of the two keepers was let go in the same year, which caused a short strike among the \
harbour workers.

Today the lighthouse runs without any keeper, and the lamp is switched by a clock and a sensor. Visitors may climb the \
tower in summer. From the gallery they can see the reef, the harbour, and on clear days the islands to the west.
"""
