"""What files of sound say about themselves, apart from their samples: read, adapted to a new file, written.

What is carried from a source into a new file, and where it is there:

==================================  ===============================  ==================================================
in the source                       in WAV and RF64                  in FLAC
==================================  ===============================  ==================================================
text tags of any container          ``LIST``/``INFO`` and ``id3 ``   Vorbis comments
``bext``                            ``bext``                         ``ORIGINATION_DATE``, ``ORIGINATION_TIME``,
                                                                     ``TIME_REFERENCE`` (samples), ``CODING_HISTORY``
``iXML``                            ``iXML``                         ``IXML``, the document
``guan`` (GUANO)                    ``guan``                         ``GUANO``, the lines
``wamd`` (Wildlife Acoustics)       ``wamd``                         ``WAMD``, base64
``cue `` with its labels; markers   ``cue `` and ``LIST``/``adtl``   a CUESHEET block, and ``CUE_001`` = position length label,
of AIFF; a CUESHEET of FLAC                                          ``CUE_001_NOTE``; positions and lengths in samples
``smpl``; loops of AIFF             ``smpl``                         ``SAMPLER_NOTE``, ``LOOP_001`` = first and last sample,
                                                                     direction, number of plays (0: without end)
==================================  ===============================  ==================================================

The comments of the last column are read as the chunks that they stand for. FLAC's APPLICATION blocks ``riff`` are read and not
written: few readers know them, and they would have to repeat the header of the source, which is not true of the new file.

The texts of ``INFO`` have no declared encoding and are written as UTF-8; the ``id3 `` chunk (ID3v2.4) repeats them, with those
that ``INFO`` has no name for, as declared UTF-8. ``bext`` is ASCII: other letters lose their accents or become ``?``.

Formats: EBU Tech 3285 (bext), Microsoft's Multimedia Programming Interface 1.0 (INFO, cue, adtl) and its New Multimedia Data
Types (smpl), the iXML specification 3, the GUANO specification 1.0, RFC 9639 (FLAC), id3.org (ID3v2.4), Apple's AIFF 1.3.
"""
