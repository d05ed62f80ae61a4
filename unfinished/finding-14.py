from pathlib import Path
def sub(f,*prs):
    p=Path(f); s=p.read_text()
    for a,b in prs:
        assert s.count(a)==1,(f,a,s.count(a)); s=s.replace(a,b)
    p.write_text(s)
sub('src/haneul/dkos/backup/archiver.py',
('''            # One of them ended the others; of several at once, that the history is another one says most.
''','''            # What was received is good, whatever ended it, and may be all that there is: etcd may never answer again.
            with contextlib.suppress(HaneulError, OSError):
                await self._flush()
            # One of them ended the others; of several at once, that the history is another one says most.
'''),
('''        taken, self._waiting, self._waiting_size = self._waiting, [], 0
        self._room.set()
''','''        taken, size = self._waiting, self._waiting_size
        self._waiting, self._waiting_size = [], 0
        self._room.set()
        try:
            await self._store(taken)
        except BaseException:
            # It failed, or was ended in the middle: the next flush, which may be the last one, has it all.
            self._waiting, self._waiting_size = [*taken, *self._waiting], size + self._waiting_size
            raise

    async def _store(self, taken: list[Revision]) -> None:
'''),
)
p=Path('tests/unit/dkos/test_archiver.py'); s=p.read_text()
s+='''

async def test_what_was_received_is_kept_when_etcd_stops_answering(tmp_path: Path) -> None:
    desk = Desk(tmp_path, VirtualClock(BEGIN), Schedule())
    await desk.archiver._begin()
    following = asyncio.create_task(desk.archiver._follow())
    async with asyncio.timeout(10):
        while not (await desk.objects.contents()).proofs:
            await asyncio.sleep(0)
        # It tells of two revisions, and is gone before anybody asks where it is.
        desk.etcd.answers = False
        for number in (2, 3):
            change = Change("a2V5", "dmFsdWU=")
            desk.etcd.changes.put_nowait(Batch(((number, (change,)),)))
        with contextlib.suppress(UnavailableError):
            await following
    assert [(one.first, one.last) for one in (await desk.objects.contents()).segments] == [(2, 3)]
'''
p.write_text(s)
