-- needs: base, batch, limits, jobs
-- Stores new jobs. Arguments: { { kind, ... }, { job, ... } }.
--   kind: { status, queue, path, rank }, what many plain jobs have in common
--   job: { id, kind's number, data, due or false, queued at, delay in ms or false }, or one of enqueue() in jobs
-- Answers { id now queued, 1 if new, ... }.

-- What the jobs of a kind share: the sorted sets that they are added to.
local function prepared(kind)
  local status, queue, path, rank = kind[1], kind[2], kind[3], kind[4]
  note_rank(rank)
  touch(queue)
  add_later(K .. 'queues', 0, queue)
  return {
    status = status, queue = queue, path = path, rank = rank ~= '0' and rank or nil, number = 0,
    line = waiting_line(queue, rank), by_status = status_index(status),
    by_queue = index_of('q', queue), by_path = index_of('h', path),
  }
end

local kinds, answers = {}, {}
local now_text = digits(now)

local function write_plain()
  for _, kind in pairs(kinds) do
    count_later(kind.queue, kind.path, kind.status, kind.number)
  end
  kinds = {}
  flush()
end

local function enqueue_plain(job)
  local id, data, due, delay = job[1], job[3], job[4], job[6]
  if call('SETNX', data_of(id), data) == 0 then
    write_plain()
    if not make_room_for(id) then
      return 0
    end
    call('SET', data_of(id), data)
  end
  local kind = kinds[job[2]]
  if not kind then
    kind = prepared(given[1][job[2]])
    kinds[job[2]] = kind
  end
  due = delay and digits(now + delay) or due or now_text
  if kind.rank then
    call('HSET', key_of(id), 's', kind.status, 'q', kind.queue, 'h', kind.path, 'd', due, 'Q', job[5], 'k', kind.rank)
  else
    call('HSET', key_of(id), 's', kind.status, 'q', kind.queue, 'h', kind.path, 'd', due, 'Q', job[5])
  end
  add_later(kind.line, due, id)
  add_later(kind.by_status, '0', id)
  add_later(kind.by_queue, '0', id)
  add_later(kind.by_path, '0', id)
  kind.number = kind.number + 1
  if kind.number <= WAKE_MOST then
    wake(kind.queue, due)
  end
  return 1
end

for _, job in ipairs(given[2]) do
  local id, created = job[1], nil
  if type(job[2]) == 'number' then
    created = enqueue_plain(job)
  else
    write_plain()
    id, created = enqueue(job)
    created = created and 1 or 0
  end
  answers[#answers + 1] = id
  answers[#answers + 1] = created
end
write_plain()
return answers
